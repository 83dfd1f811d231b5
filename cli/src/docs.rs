//! `gauze docs CODE`: what a problem code means, and what to do about it. It needs no network and no mesh.

use gauze_model::Code;
use gauze_model::codes::Entry;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::table::Table;
use crate::terminal::{self, Style};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A code, as it stands in `gauze-error`, logs, metrics and statuses: M3003. Without it: all codes
    code: Option<String>,
    #[command(flatten)]
    output: output::Output,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Exit> {
    let format = arguments.output.format;
    let Some(code) = arguments.code else {
        return list(format);
    };
    let entry = find(&code)?;
    match format {
        Format::Table => print!("{}", page(entry, terminal::output())),
        Format::Json | Format::Yaml => output::print_value(format, &value(entry))?,
    }
    Ok(Exit::Fine)
}

/// Reads `M3003`, `m3003` and `3003`.
fn find(text: &str) -> Result<&'static Entry, Failure> {
    let code =
        if text.starts_with(|c: char| c.is_ascii_digit()) { format!("M{text}") } else { text.to_owned() };
    let code: Code = code.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    code.entry().ok_or_else(|| Failure::Usage(format!("{code} is not in the register")))
}

fn list(format: Format) -> anyhow::Result<Exit> {
    let mut table = Table::new(&["CODE", "STATUS", "FLAG", "WHAT"]);
    for entry in Code::all() {
        let status = if entry.status == 0 { String::new() } else { entry.status.to_string() };
        table.push(vec![entry.code.to_string().into(), status.into(), entry.flag.into(), entry.title.into()]);
    }
    let values = Value::Array(Code::all().iter().map(value).collect());
    output::print(format, &table, &values, "the register is empty")?;
    Ok(Exit::Fine)
}

fn value(entry: &Entry) -> Value {
    json!({
        "code": entry.code.to_string(),
        "title": entry.title,
        "cause": entry.cause,
        "remedy": entry.remedy,
        "flag": entry.flag,
        "status": entry.status,
        "grpc_status": entry.grpc,
    })
}

fn page(entry: &Entry, style: Style) -> String {
    let mut text = format!("{}  {}\n\n", style.bold(&entry.code.to_string()), entry.title);
    text += &format!("{}\n\n{}\n", wrap(entry.cause), wrap(entry.remedy));
    let mut seen = Vec::new();
    if entry.status != 0 {
        seen.push(format!("HTTP status {}", entry.status));
        seen.push(format!("gRPC status {}", entry.grpc));
    }
    if !entry.flag.is_empty() {
        seen.push(format!("{} in the access log", entry.flag));
    }
    if !seen.is_empty() {
        text += &style.dim(&format!("\nIt is seen as {}.\n", seen.join(", ")));
    }
    text
}

const WIDTH: usize = 88;

/// Breaks a text at blanks.
fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().filter(|line| line.chars().count() + word.chars().count() < WIDTH);
        match line {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for text in ["M3001", "m3001", "3001"] {
            assert_eq!(find(text).unwrap().code, Code(3001), "{text}");
        }
        for text in ["M0", "M99999", "503", "what"] {
            assert!(matches!(find(text), Err(Failure::Usage(_))), "{text}");
        }
    }

    #[test]
    fn every_code_has_a_page_that_fits_a_terminal() {
        for entry in Code::all() {
            let page = page(entry, Style::PLAIN);
            assert!(page.contains(entry.title) && page.contains(entry.remedy.split(' ').next().unwrap()));
            assert!(page.lines().skip(1).all(|line| line.chars().count() <= WIDTH), "{page}");
        }
    }
}
