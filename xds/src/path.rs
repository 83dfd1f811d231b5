//! Errors that gather their field path on the way up: the innermost reader says what is wrong, each reader
//! above it adds the field that it stood in.

use gauze_model::{Code, Kind, Origin};

use crate::Rejection;

/// What reading gives.
pub(crate) type Read<T> = Result<T, Fault>;

/// What is wrong, where, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    code: Code,
    path: String,
    problem: String,
    origin: Option<Box<Origin>>,
}

impl Fault {
    /// Something that is wrong in itself.
    pub(crate) fn new(problem: impl Into<String>) -> Fault {
        Fault::coded(Code::CONFIGURATION_REFUSED, problem)
    }

    /// Something that gauze does not know how to obey.
    pub(crate) fn beyond(problem: impl Into<String>) -> Fault {
        Fault::coded(Code::CONFIGURATION_UNSUPPORTED, problem)
    }

    /// A field that gauze does not know how to obey.
    pub(crate) fn unsupported(field: &str) -> Fault {
        Fault::beyond("not supported").at(field)
    }

    pub(crate) fn coded(code: Code, problem: impl Into<String>) -> Fault {
        Fault { code, path: String::new(), problem: problem.into(), origin: None }
    }

    /// Of an authorization policy that is replaced by its closed form, and refuses nothing else.
    pub(crate) fn closed(self) -> Fault {
        Fault { code: Code::POLICY_CLOSED, ..self }
    }

    pub(crate) fn into_rejection(self, kind: Kind, name: &str) -> Rejection {
        let Fault { code, path, problem, origin } = self;
        Rejection { kind, name: name.to_owned(), code, path, problem, origin }
    }
}

/// Adds to a fault what its finder could not know.
pub(crate) trait At: Sized {
    /// The field in which it was found; generated names such as `r#match` lose their `r#`.
    fn at(self, field: &str) -> Self;
    /// The element of a list, whose field is added by the caller.
    fn item(self, index: usize) -> Self;
    /// The user's object, unless a more precise one is known already.
    fn by(self, origin: &Origin) -> Self;
}

impl At for Fault {
    fn at(mut self, field: &str) -> Fault {
        let field = field.strip_prefix("r#").unwrap_or(field);
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{field}{joint}{}", self.path);
        self
    }

    fn item(mut self, index: usize) -> Fault {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("[{index}]{joint}{}", self.path);
        self
    }

    fn by(mut self, origin: &Origin) -> Fault {
        if self.origin.is_none() && *origin != Origin::default() {
            self.origin = Some(Box::new(origin.clone()));
        }
        self
    }
}

impl<T> At for Read<T> {
    fn at(self, field: &str) -> Read<T> {
        self.map_err(|fault| fault.at(field))
    }

    fn item(self, index: usize) -> Read<T> {
        self.map_err(|fault| fault.item(index))
    }

    fn by(self, origin: &Origin) -> Read<T> {
        self.map_err(|fault| fault.by(origin))
    }
}

/// Reads each element of a list; a fault says which one.
pub(crate) fn each<T, U>(
    list: impl IntoIterator<Item = T>,
    mut read: impl FnMut(T) -> Read<U>,
) -> Read<Vec<U>> {
    list.into_iter().enumerate().map(|(index, element)| read(element).item(index)).collect()
}

/// Insists on a field.
pub(crate) fn required<T>(field: Option<T>) -> Read<T> {
    field.ok_or_else(|| Fault::new("missing"))
}

/// Insists on the one form of a field that means what gauze does.
pub(crate) fn same<T: PartialEq + ?Sized>(given: &T, wanted: &T) -> Read<()> {
    if given == wanted { Ok(()) } else { Err(Fault::beyond("not the only form that is supported")) }
}

/// Refuses by name each of these fields that is not at its default.
macro_rules! refuse {
    ($($field:ident),* $(,)?) => {
        $( $crate::path::at_default(&$field).at(stringify!($field))?; )*
    };
}
pub(crate) use refuse;

pub(crate) fn at_default<T: Default + PartialEq>(value: &T) -> Read<()> {
    if *value == T::default() { Ok(()) } else { Err(Fault::beyond("not supported")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_gathered_from_the_inside_out() {
        let inner: Read<()> = Err(Fault::unsupported("timeout"));
        let fault = inner.at("route").item(3).at("routes").item(0).at("virtual_hosts").unwrap_err();
        assert_eq!(fault.path, "virtual_hosts[0].routes[3].route.timeout");
    }

    #[test]
    fn the_most_precise_origin_stays() {
        let (rule, table) = (Origin::default().at("spec.rules[0]"), Origin::default().at("spec"));
        let fault = Fault::new("x").by(&rule).by(&table);
        assert_eq!(fault.origin.as_deref(), Some(&rule));
    }

    #[test]
    fn a_field_that_is_set_is_refused_by_name() {
        fn read(timeout: u32, r#match: Option<u32>) -> Read<()> {
            refuse!(timeout, r#match);
            Ok(())
        }
        assert_eq!(read(0, None), Ok(()));
        assert_eq!(read(1, None), Err(Fault::unsupported("timeout")));
        assert_eq!(read(0, Some(0)), Err(Fault::unsupported("match")));
    }
}
