//! The objects of the shop, as somebody would `kubectl apply` them, in a directory of their own.
//! What is there already is the user's and stays as it is.

use std::fs;
use std::path::Path;

use anyhow::Context;

/// The files, in the order in which one would read them.
const FILES: [(&str, &str); 6] = [
    ("namespace.yaml", include_str!("../../demo/namespace.yaml")),
    ("serviceaccounts.yaml", include_str!("../../demo/serviceaccounts.yaml")),
    ("services.yaml", include_str!("../../demo/services.yaml")),
    ("pods.yaml", include_str!("../../demo/pods.yaml")),
    ("endpointslices.yaml", include_str!("../../demo/endpointslices.yaml")),
    ("cart-split.yaml", include_str!("../../demo/cart-split.yaml")),
];

/// The file that the demo's story edits.
pub(crate) const SPLIT_FILE: &str = "cart-split.yaml";

/// The first two bytes of the pods' addresses in the embedded files.
pub(crate) const ADDRESS_BASE: &str = "127.1";

/// Writes the shop's objects into `directory`, those that are missing or, with `reset`, all of them.
/// The pods' addresses begin with `address_base`. Says how many files it wrote.
pub(crate) fn write(directory: &Path, address_base: &str, reset: bool) -> anyhow::Result<usize> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut written = 0;
    for (name, text) in FILES {
        let file = directory.join(name);
        if file.exists() && !reset {
            continue;
        }
        fs::write(&file, with_addresses(text, address_base))
            .with_context(|| format!("cannot write {}", file.display()))?;
        written += 1;
    }
    Ok(written)
}

/// Removes what a story left here that was killed before it could tidy up.
pub(crate) fn sweep(directory: &Path, left: &[&str]) {
    for file in left {
        // As a rule there is none.
        let _ = fs::remove_file(directory.join(file));
    }
}

/// The text of an embedded file with its pods at other addresses.
pub(crate) fn with_addresses(text: &str, address_base: &str) -> String {
    text.replace(&format!("{ADDRESS_BASE}."), &format!("{address_base}."))
}

/// Reads `127.7`: the first two bytes of loopback addresses.
///
/// # Errors
/// It is no such thing.
pub(crate) fn parse_address_base(text: &str) -> Result<String, String> {
    let problem =
        || format!("`{text}` is not of the form 127.N, with N from 0 to 255: pods live on loopback");
    let (first, second) = text.split_once('.').ok_or_else(problem)?;
    let second: u8 = second.parse().map_err(|_| problem())?;
    if first == "127" { Ok(format!("127.{second}")) } else { Err(problem()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_edited_stays_unless_reset() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(write(directory.path(), ADDRESS_BASE, false).unwrap(), FILES.len());
        let split = directory.path().join(SPLIT_FILE);
        fs::write(&split, "# mine").unwrap();

        assert_eq!(write(directory.path(), ADDRESS_BASE, false).unwrap(), 0);
        assert_eq!(fs::read_to_string(&split).unwrap(), "# mine");

        assert_eq!(write(directory.path(), ADDRESS_BASE, true).unwrap(), FILES.len());
        assert!(fs::read_to_string(&split).unwrap().contains("kind: TrafficSplit"));
    }

    #[test]
    fn another_address_base_moves_every_pod() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "127.77", false).unwrap();
        let pods = fs::read_to_string(directory.path().join("pods.yaml")).unwrap();
        assert!(pods.contains("podIP: 127.77.1.1"));
        assert!(!pods.contains("127.1.1.1"));
    }

    #[test]
    fn only_loopback_is_an_address_base() {
        assert_eq!(parse_address_base("127.9"), Ok("127.9".to_owned()));
        for text in ["127", "10.1", "127.256", "127.1.2", "127.x", ""] {
            assert!(parse_address_base(text).is_err(), "{text}");
        }
    }
}
