//! Tables for people: columns as wide as their widest cell, nothing drawn around them.

use crate::terminal::Style;

/// Rows of text below a head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

/// One field, and how it is made to stand out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// What a field says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Normal,
    Good,
    Doubtful,
    Bad,
    Quiet,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: text.into(), tone: Tone::Normal }
    }
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Cell {
        Cell { text: text.into(), tone }
    }

    fn paint(&self, text: &str, style: Style) -> String {
        match self.tone {
            Tone::Normal => text.to_owned(),
            Tone::Good => style.green(text),
            Tone::Doubtful => style.yellow(text),
            Tone::Bad => style.red(text),
            Tone::Quiet => style.dim(text),
        }
    }
}

/// Between two columns.
const GAP: &str = "  ";

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Table {
        Table { head: head.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines of the table, its head first; the last column is not filled up.
    pub(crate) fn render(&self, style: Style) -> String {
        let widths = self.widths();
        let mut text = String::new();
        let head = self.head.iter().map(|title| Cell::from(*title)).collect::<Vec<_>>();
        for (index, row) in std::iter::once(&head).chain(&self.rows).enumerate() {
            let cells = row.iter().zip(&widths).map(|(cell, width)| {
                let padding = " ".repeat(width - width_of(&cell.text));
                let painted = if index == 0 { style.bold(&cell.text) } else { cell.paint(&cell.text, style) };
                format!("{painted}{padding}")
            });
            text += cells.collect::<Vec<_>>().join(GAP).trim_end();
            text.push('\n');
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|title| width_of(title)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(width_of(&cell.text));
            }
        }
        widths
    }
}

/// Characters, which is right for what we print: no wide or combining ones.
fn width_of(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "STATE", ""]);
        table.push(vec!["cart → web".into(), Cell::new("ok", Tone::Good), "".into()]);
        table.push(vec!["a".into(), Cell::new("failed", Tone::Bad), "why".into()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_without_blanks() {
        let expected = "NAME        STATE\ncart → web  ok\na           failed  why\n";
        assert_eq!(table().render(Style::PLAIN), expected);
    }

    #[test]
    fn an_empty_table_is_its_head() {
        assert_eq!(Table::new(&["A", "B"]).render(Style::PLAIN), "A  B\n");
    }
}
