//! One result, three ways to see it: a table for people, JSON and YAML for programs.

use serde_json::Value;

use crate::table::Table;
use crate::terminal;

/// `-o`, as every command has it that shows something.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Output {
    /// How the result is printed
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
}

/// Prints a result on stdout; `nothing` goes to stderr where the table is empty.
pub(crate) fn print(format: Format, table: &Table, value: &Value, nothing: &str) -> anyhow::Result<()> {
    if format != Format::Table {
        return print_value(format, value);
    }
    if table.is_empty() {
        eprintln!("{nothing}");
        return Ok(());
    }
    print!("{}", table.render(terminal::output()));
    Ok(())
}

/// Prints a value as it is; YAML where a table was asked for, since people read it.
pub(crate) fn print_value(format: Format, value: &Value) -> anyhow::Result<()> {
    match format {
        Format::Json => println!("{}", serde_json::to_string_pretty(value)?),
        Format::Yaml | Format::Table => print!("{}", serde_saphyr::to_string(value)?),
    }
    Ok(())
}
