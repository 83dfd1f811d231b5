//! Header changes: Envoy's pairs of lists `…_headers_to_add` and `…_headers_to_remove`.
//!
//! Envoy removes first and then adds in order; gauze sets, adds, and then removes. Both come to the same if what
//! is removed is not set or added as well, so such changes, which have no effect, are not written. Envoy makes the
//! changes of a share before those of its rule, gauze after them: where both change a header, the rule's part is
//! written into its shares. In Envoy a value is a format string: `%` stands for a command, `%%` for itself.

use std::collections::HashSet;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use gauze_model::route::HeaderChange;
use http::{HeaderName, HeaderValue};

use crate::path::{At as _, Fault, Read, each, refuse, required};

/// The two lists.
pub(super) struct HeaderFields {
    pub(super) to_add: Vec<core::HeaderValueOption>,
    pub(super) to_remove: Vec<String>,
}

pub(super) fn write_header_change(change: &HeaderChange) -> HeaderFields {
    let HeaderChange { set, add, remove } = change;
    let stays = |(name, _): &&(HeaderName, HeaderValue)| !remove.contains(name);
    let set =
        set.iter().filter(stays).map(|header| write(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = add.iter().filter(stays).map(|header| write(header, HeaderAppendAction::AppendIfExistsOrAdd));
    HeaderFields {
        to_add: set.chain(add).collect(),
        to_remove: remove.iter().map(ToString::to_string).collect(),
    }
}

/// The same changes, such that no header is changed by a rule and by one of its shares.
pub(super) fn apart(rule: &HeaderChange, shares: &mut [&mut HeaderChange]) -> HeaderChange {
    let of_shares: HashSet<HeaderName> = shares.iter().flat_map(|share| names(share)).cloned().collect();
    let (contested, rest) = partition(rule, |name| of_shares.contains(name));
    if contested != HeaderChange::default() {
        shares.iter_mut().for_each(|share| **share = one_after_another(&contested, share));
    }
    rest
}

fn names(change: &HeaderChange) -> impl Iterator<Item = &HeaderName> {
    change.set.iter().chain(&change.add).map(|(name, _)| name).chain(&change.remove)
}

/// What `change` does to the headers that are chosen, and to all others.
fn partition(change: &HeaderChange, choose: impl Fn(&HeaderName) -> bool) -> (HeaderChange, HeaderChange) {
    let HeaderChange { set, add, remove } = change.clone();
    let (set, other_set) = set.into_iter().partition(|(name, _)| choose(name));
    let (add, other_add) = add.into_iter().partition(|(name, _)| choose(name));
    let (remove, other_remove) = remove.into_iter().partition(choose);
    let other = HeaderChange { set: other_set, add: other_add, remove: other_remove };
    (HeaderChange { set, add, remove }, other)
}

/// Both changes as one.
fn one_after_another(first: &HeaderChange, then: &HeaderChange) -> HeaderChange {
    let undone =
        |name: &HeaderName| then.set.iter().any(|(set, _)| set == name) || then.remove.contains(name);
    let (_, mut both) = partition(first, undone);
    both.set.retain(|(name, _)| !first.remove.contains(name));
    both.add.retain(|(name, _)| !first.remove.contains(name));
    both.set.extend(then.set.iter().cloned());
    for (name, value) in &then.add {
        // Added to nothing is set.
        let removed = both.remove.contains(name);
        both.remove.retain(|other| other != name);
        if removed { &mut both.set } else { &mut both.add }.push((name.clone(), value.clone()));
    }
    both.remove.extend(then.remove.iter().cloned());
    both
}

/// Reads the lists that stand in the fields `{field}_to_add` and `{field}_to_remove`.
pub(super) fn read_header_change(fields: HeaderFields, field: &str) -> Read<HeaderChange> {
    let HeaderFields { to_add, to_remove } = fields;
    let mut change = HeaderChange::default();
    let to_add_field = format!("{field}_to_add");
    for (index, option) in to_add.into_iter().enumerate() {
        let (action, header) = read(option).item(index).at(&to_add_field)?;
        match action {
            HeaderAppendAction::AppendIfExistsOrAdd => change.add.push(header),
            HeaderAppendAction::OverwriteIfExistsOrAdd if change.add.is_empty() => change.set.push(header),
            _ => return Err(Fault::unsupported("append_action").item(index).at(&to_add_field)),
        }
    }
    change.remove = each(&to_remove, |name| read_header_name(name)).at(&format!("{field}_to_remove"))?;
    let removed = |(name, _): &(HeaderName, HeaderValue)| change.remove.contains(name);
    if let Some((name, _)) = change.set.iter().chain(&change.add).find(|header| removed(header)) {
        let problem = format!("`{name}` is removed as well, which is not supported");
        return Err(Fault::beyond(problem).at(&to_add_field));
    }
    Ok(change)
}

pub(super) fn read_header_name(name: &str) -> Read<HeaderName> {
    name.parse().map_err(|_| Fault::new(format!("`{name}` is not the name of a header")))
}

fn write((name, value): &(HeaderName, HeaderValue), action: HeaderAppendAction) -> core::HeaderValueOption {
    let mut header = core::HeaderValue { key: name.to_string(), ..core::HeaderValue::default() };
    match str::from_utf8(value.as_bytes()) {
        Ok(text) => header.value = text.replace('%', "%%"),
        Err(_) => header.raw_value = value.as_bytes().to_vec(),
    }
    core::HeaderValueOption {
        header: Some(header),
        append_action: action as i32,
        keep_empty_value: value.is_empty(),
        ..core::HeaderValueOption::default()
    }
}

fn read(option: core::HeaderValueOption) -> Read<(HeaderAppendAction, (HeaderName, HeaderValue))> {
    let core::HeaderValueOption { header, append, append_action, keep_empty_value } = option;
    refuse!(append);
    let action =
        HeaderAppendAction::try_from(append_action).map_err(|_| Fault::unsupported("append_action"))?;
    let (name, value) = required(header).and_then(read_header).at("header")?;
    if value.is_empty() && !keep_empty_value {
        return Err(Fault::beyond("an empty value is only supported with `keep_empty_value`").at("header"));
    }
    Ok((action, (name, value)))
}

fn read_header(header: core::HeaderValue) -> Read<(HeaderName, HeaderValue)> {
    let core::HeaderValue { key, value, raw_value } = header;
    let name = read_header_name(&key).at("key")?;
    let bytes = match (value.is_empty(), raw_value.is_empty()) {
        (_, true) => unescape(&value).at("value")?.into_bytes(),
        (true, false) => raw_value,
        (false, false) => return Err(Fault::unsupported("raw_value")),
    };
    let value =
        HeaderValue::from_bytes(&bytes).map_err(|_| Fault::new("not the value of a header").at("value"))?;
    Ok((name, value))
}

/// A format string without commands.
fn unescape(format: &str) -> Read<String> {
    let text = format.replace("%%", "");
    if text.contains('%') {
        return Err(Fault::beyond("commands (`%…%`) are not supported"));
    }
    Ok(format.replace("%%", "%"))
}
