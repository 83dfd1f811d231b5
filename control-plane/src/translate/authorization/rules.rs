//! The rules of an AuthorizationPolicy as the model has them, or the first field that cannot be read.

use gauze_crds::authorization_policy::{
    AuthorizationAction, AuthorizationOperation, AuthorizationPolicySpec, AuthorizationSource,
};
use gauze_model::SpiffeId;
use gauze_model::authorization::path::can_be_named;
use gauze_model::authorization::{Operation, Rule, Source, StringMatch};

use super::ports;

/// What cannot be read: the field, and what to write.
type Fault = (String, String);

pub(super) fn rules(spec: &AuthorizationPolicySpec) -> Result<Vec<Rule>, Fault> {
    if spec.rules.is_empty() && spec.action != AuthorizationAction::Allow {
        let message = "a policy without rules that denies or audits has no effect: write at least one rule";
        return Err(("spec.rules".to_owned(), message.to_owned()));
    }
    let rules = spec.rules.iter().enumerate().map(|(index, rule)| {
        let path = format!("spec.rules[{index}]");
        if rule.from.is_none() && rule.to.is_none() {
            let message =
                "a rule says `from`, `to`, or both; to let nobody in, write `action: Allow` without rules";
            return Err((path, message.to_owned()));
        }
        Ok(Rule {
            from: each(&format!("{path}.from"), rule.from.as_deref(), source)?,
            to: each(&format!("{path}.to"), rule.to.as_deref(), operation)?,
        })
    });
    rules.collect()
}

/// A list that is there holds something: an empty one could mean nobody or anybody.
fn each<T, U>(
    path: &str,
    list: Option<&[T]>,
    read: impl Fn(&str, &T) -> Result<U, Fault>,
) -> Result<Vec<U>, Fault> {
    if list.is_some_and(<[T]>::is_empty) {
        return Err((path.to_owned(), "the list is empty; write an entry, or leave it out".to_owned()));
    }
    let entries = list.unwrap_or_default().iter().enumerate();
    entries.map(|(index, entry)| read(&format!("{path}[{index}]"), entry)).collect()
}

fn source(path: &str, of: &AuthorizationSource) -> Result<Source, Fault> {
    let AuthorizationSource { identities, not_identities, namespaces, not_namespaces } = of;
    if *of == AuthorizationSource::default() {
        let message =
            "a source says at least one of `identities`, `notIdentities`, `namespaces` and `notNamespaces`";
        return Err((path.to_owned(), message.to_owned()));
    }
    let list =
        |name: &str, list: &Option<Vec<String>>, kind: Kind| strings(&format!("{path}.{name}"), list, kind);
    Ok(Source {
        identities: list("identities", identities, IDENTITY)?,
        not_identities: list("notIdentities", not_identities, IDENTITY)?,
        namespaces: list("namespaces", namespaces, NAMESPACE)?,
        not_namespaces: list("notNamespaces", not_namespaces, NAMESPACE)?,
    })
}

fn operation(path: &str, of: &AuthorizationOperation) -> Result<Operation, Fault> {
    let AuthorizationOperation { methods, not_methods, paths, not_paths, ports, not_ports } = of;
    if *of == AuthorizationOperation::default() {
        let message = "an operation says at least one of `methods`, `notMethods`, `paths`, `notPaths`, `ports` and `notPorts`";
        return Err((path.to_owned(), message.to_owned()));
    }
    let list =
        |name: &str, list: &Option<Vec<String>>, kind: Kind| strings(&format!("{path}.{name}"), list, kind);
    let numbers =
        |name: &str, list: &Option<Vec<i32>>| each(&format!("{path}.{name}"), list.as_deref(), port);
    Ok(Operation {
        methods: list("methods", methods, METHOD)?,
        not_methods: list("notMethods", not_methods, METHOD)?,
        paths: list("paths", paths, PATH)?,
        not_paths: list("notPaths", not_paths, PATH)?,
        ports: numbers("ports", ports)?.into_iter().collect(),
        not_ports: numbers("notPorts", not_ports)?.into_iter().collect(),
    })
}

fn port(path: &str, number: &i32) -> Result<u16, Fault> {
    let read = ports::number(*number);
    read.ok_or_else(|| (path.to_owned(), format!("`{number}` is no port; write a number from 1 to 65535")))
}

/// What a string must be, and what to write otherwise.
#[derive(Clone, Copy)]
struct Kind {
    is_usable: fn(&StringMatch) -> bool,
    advice: &'static str,
}

const IDENTITY: Kind = Kind {
    is_usable: |identity| match identity {
        StringMatch::Exact(text) => text.parse::<SpiffeId>().is_ok(),
        StringMatch::Prefix(text) => text.starts_with("spiffe://"),
        StringMatch::Any | StringMatch::Suffix(_) => true,
    },
    advice: "write an identity as in `spiffe://cluster.local/ns/shop/sa/web`, with a `*` at most at one end, as in `spiffe://cluster.local/ns/shop/*` or `*/sa/web`",
};

const NAMESPACE: Kind = Kind {
    is_usable: |namespace| {
        namespace.text().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    },
    advice: "write a namespace as in `shop`, with a `*` at most at one end, as in `shop-*` or `*-prod`",
};

const METHOD: Kind = Kind {
    is_usable: |method| method.text().bytes().all(|b| b.is_ascii_uppercase() || b == b'-'),
    advice: "write a method in capitals, as in `GET`",
};

const PATH: Kind = Kind {
    is_usable: can_be_named,
    advice: "write a path as servers read it, as in `/items`: decoded, without query, parameters, `//`, `/./` and `/../`, and with a `*` at most at one end, as in `/items/*` or `*.json`",
};

fn strings(path: &str, list: &Option<Vec<String>>, kind: Kind) -> Result<Vec<StringMatch>, Fault> {
    each(path, list.as_deref(), |path, text: &String| {
        let read = text.parse().ok().filter(kind.is_usable);
        read.ok_or_else(|| (path.to_owned(), format!("`{text}` cannot be read; {}", kind.advice)))
    })
}
