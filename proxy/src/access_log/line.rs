//! One line: a pure function of a format and a record.

use gauze_model::access_log::{FIELDS, Field, Format, Member, MemberValue, Operator, Piece};

use super::fields::{Ended, Value, value};
use crate::record::Record;

/// Bytes of one field: paths, hosts and headers are somebody else's.
pub(super) const FIELD_MAX: usize = 2048;

/// Writes the line of a record, with its newline.
pub(super) fn write_line(out: &mut Vec<u8>, format: &Format, record: &Record, ended: Ended) {
    match format {
        Format::Off => return,
        Format::Json => write_json(out, record, ended),
        Format::Text(pieces) => write_pieces(out, pieces, record, ended),
        Format::Object(members) => write_members(out, members, record, ended),
    }
    if out.last() != Some(&b'\n') {
        out.push(b'\n');
    }
}

/// All that is known; what is not known is left out.
fn write_json(out: &mut Vec<u8>, record: &Record, ended: Ended) {
    out.push(b'{');
    for (name, field) in &FIELDS {
        let value = value(field, record, ended);
        if matches!(value, Value::Unknown) {
            continue;
        }
        write_name(out, name);
        write_json_value(out, &value);
    }
    out.push(b'}');
}

fn write_members(out: &mut Vec<u8>, members: &[Member], record: &Record, ended: Ended) {
    out.push(b'{');
    for Member { name, value } in members {
        write_name(out, name);
        match value {
            MemberValue::Constant(json) => out.extend_from_slice(json.as_bytes()),
            MemberValue::Object(members) => write_members(out, members, record, ended),
            MemberValue::Text(pieces) => match pieces.as_slice() {
                [Piece::Operator(operator)] => write_json_value(out, &filled_in(operator, record, ended)),
                pieces => {
                    let mut text = Vec::new();
                    write_pieces(&mut text, pieces, record, ended);
                    write_string(out, &text);
                }
            },
        }
    }
    out.push(b'}');
}

/// A text; what is not known is `-`.
fn write_pieces(out: &mut Vec<u8>, pieces: &[Piece], record: &Record, ended: Ended) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Operator(operator) => match filled_in(operator, record, ended) {
                Value::Unknown => out.push(b'-'),
                Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
                Value::Text(text) => {
                    out.extend(text.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }))
                }
            },
        }
    }
}

fn filled_in<'r>(operator: &Operator, record: &'r Record, ended: Ended) -> Value<'r> {
    let length = operator.length.unwrap_or(FIELD_MAX).min(FIELD_MAX);
    match value(&operator.field, record, ended) {
        // As Envoy has it.
        Value::Unknown if operator.field == Field::Status => Value::Number(0),
        Value::Text(text) if text.len() > length => Value::Text(text[..length].to_vec().into()),
        value => value,
    }
}

fn write_json_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Unknown => out.extend_from_slice(b"null"),
        Value::Number(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Value::Text(text) => write_string(out, &text[..text.len().min(FIELD_MAX)]),
    }
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_string(out, name.as_bytes());
    out.push(b':');
}

/// A JSON string; what is not UTF-8 is replaced.
pub(super) fn write_string(out: &mut Vec<u8>, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            control if control.is_control() => {
                out.extend_from_slice(format!("\\u{:04x}", control as u32).as_bytes());
            }
            other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// The format with what is the same in every line filled in: the pod, and the environment.
pub(super) fn settled(format: Format, pod: &str) -> Format {
    match format {
        Format::Off | Format::Json => format,
        Format::Text(pieces) => Format::Text(settled_pieces(pieces, pod)),
        Format::Object(members) => Format::Object(settled_members(members, pod)),
    }
}

fn settled_members(members: Vec<Member>, pod: &str) -> Vec<Member> {
    let settle = |member: Member| {
        let value = match member.value {
            MemberValue::Text(pieces) => MemberValue::Text(settled_pieces(pieces, pod)),
            MemberValue::Object(members) => MemberValue::Object(settled_members(members, pod)),
            constant @ MemberValue::Constant(_) => constant,
        };
        Member { value, ..member }
    };
    members.into_iter().map(settle).collect()
}

fn settled_pieces(pieces: Vec<Piece>, pod: &str) -> Vec<Piece> {
    let settle = |piece| match piece {
        Piece::Operator(Operator { field: Field::Hostname, .. }) => Piece::Text(pod.to_owned()),
        Piece::Operator(Operator { field: Field::Environment(name), .. }) => {
            Piece::Text(std::env::var(name).unwrap_or_else(|_| "-".to_owned()))
        }
        piece => piece,
    };
    pieces.into_iter().map(settle).collect()
}
