//! `gauze apply` and `gauze delete`: objects into the directory that the control plane follows, and out of it.
//! Each applied object gets a file of its own, unless a file holds it already.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::files::{self, YamlFile};
use crate::source::Place;

#[derive(clap::Args)]
pub(crate) struct Apply {
    /// A file of objects; `-` reads stdin
    #[arg(short, long, required = true)]
    file: Vec<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct Delete {
    /// The kind of the object, as in its YAML
    kind: String,
    /// NAME or NAMESPACE/NAME
    name: String,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    kind: String,
    namespace: Option<String>,
    name: String,
}

/// One object with the text that it was written in.
#[derive(Clone, Debug, PartialEq)]
struct Document {
    key: Key,
    text: String,
}

pub(crate) fn apply(arguments: &Apply, place: &Place) -> anyhow::Result<Exit> {
    let files: Vec<String> = arguments.file.iter().map(|file| format!("-f {}", file.display())).collect();
    let directory = place.directory(&format!("kubectl apply {}", files.join(" ")))?.path;
    files::read(&directory)?;
    for file in &arguments.file {
        let text = read(file)?;
        let documents = documents(&text).with_context(|| file.display().to_string())?;
        for document in documents {
            let (path, done) = apply_one(&directory, &document)?;
            println!("{}/{} {done}   ({})", document.key.kind, document.key.name, path.display());
        }
    }
    Ok(Exit::Fine)
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    std::fs::read_to_string(file)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", file.display())).into())
}

/// The objects of a text, each with its own part of it.
fn documents(text: &str) -> anyhow::Result<Vec<Document>> {
    let mut documents = Vec::new();
    for part in parts(text) {
        let value: Value =
            serde_saphyr::from_str(&part).map_err(|error| anyhow::anyhow!("is no YAML: {error}"))?;
        if value.is_null() {
            continue;
        }
        let Some(key) = key(&value) else {
            bail!(Failure::Usage("an object needs `kind` and `metadata.name`".to_owned()));
        };
        documents.push(Document { key, text: part });
    }
    Ok(documents)
}

/// The parts of a YAML stream between its `---` lines.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in text.split_inclusive('\n') {
        if line.trim_end() == "---" {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push_str(line);
        }
    }
    parts
}

fn key(object: &Value) -> Option<Key> {
    Some(Key {
        kind: object["kind"].as_str()?.to_owned(),
        namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
        name: object["metadata"]["name"].as_str()?.to_owned(),
    })
}

/// Puts an object in place of the one that is there, or in a file of its own; says where and what was done.
fn apply_one(directory: &Path, document: &Document) -> anyhow::Result<(PathBuf, &'static str)> {
    for file in files::read(directory)? {
        let Some(text) = replaced(&file.text, &document.key, Some(&document.text)) else { continue };
        if text == file.text {
            return Ok((file.path, "unchanged"));
        }
        file.write(&text)?;
        return Ok((file.path, "changed"));
    }
    let path = free_path(directory, &document.key);
    files::write_whole(&path, &document.text)?;
    Ok((path, "created"))
}

/// A file name that nobody has: `httproute-cart.yaml`.
fn free_path(directory: &Path, key: &Key) -> PathBuf {
    let kind = key.kind.to_ascii_lowercase();
    let short = directory.join(format!("{kind}-{}.yaml", key.name));
    if !short.exists() {
        return short;
    }
    let namespace = key.namespace.as_deref().unwrap_or("default");
    directory.join(format!("{kind}-{namespace}-{}.yaml", key.name))
}

/// The text of a file with one object replaced, or taken out; `None` if it is not there.
fn replaced(text: &str, key: &Key, by: Option<&str>) -> Option<String> {
    let mut parts = parts(text);
    let at = parts.iter().position(|part| {
        serde_saphyr::from_str::<Value>(part).ok().and_then(|value| self::key(&value)).as_ref() == Some(key)
    })?;
    match by {
        Some(by) => by.clone_into(&mut parts[at]),
        None => drop(parts.remove(at)),
    }
    let last = parts.len().saturating_sub(1);
    for part in parts.iter_mut().take(last).filter(|part| !part.is_empty() && !part.ends_with('\n')) {
        part.push('\n');
    }
    Some(parts.join("---\n"))
}

pub(crate) fn delete(arguments: &Delete, place: &Place) -> anyhow::Result<Exit> {
    let (namespace, name) = files::split_name(&arguments.name);
    let namespace = namespace.or(place.namespace.as_deref());
    let option = namespace.map_or_else(String::new, |namespace| format!(" -n {namespace}"));
    let directory = place.directory(&format!("kubectl delete {} {name}{option}", arguments.kind))?.path;
    let wanted = |key: &Key| {
        key.kind.eq_ignore_ascii_case(&arguments.kind)
            && key.name == name
            && namespace.is_none_or(|namespace| key.namespace.as_deref() == Some(namespace))
    };
    for file in files::read(&directory)? {
        let objects = file.objects().unwrap_or_default();
        let Some(key) = objects.iter().filter_map(key).find(|key| wanted(key)) else { continue };
        take_out(&file, &key, objects.len())?;
        println!("{}/{} deleted   ({})", key.kind, key.name, file.path.display());
        return Ok(Exit::Fine);
    }
    let directory = directory.display();
    bail!(Failure::Usage(format!("there is no {} {} in {directory}", arguments.kind, arguments.name)))
}

/// Takes an object out of a file; a file that held nothing else goes with it.
fn take_out(file: &YamlFile, key: &Key, objects: usize) -> anyhow::Result<()> {
    if objects == 1 {
        return std::fs::remove_file(&file.path)
            .with_context(|| format!("cannot remove {}", file.path.display()));
    }
    let text = replaced(&file.text, key, None);
    file.write(&text.with_context(|| format!("cannot find it again in {}", file.path.display()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# first\nkind: Service\nmetadata: {name: a, namespace: shop}\n---\nkind: Service\nmetadata: {name: b, namespace: shop}\n";

    fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn an_object_takes_the_place_of_the_one_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let file = write(directory.path(), "two.yaml", TWO);
        let new = "kind: Service\nmetadata: {name: b, namespace: shop}\nspec: {clusterIP: 10.0.0.1}\n";
        let document = documents(new).unwrap().remove(0);
        assert_eq!(apply_one(directory.path(), &document).unwrap(), (file.clone(), "changed"));
        let expected = TWO.replace("kind: Service\nmetadata: {name: b, namespace: shop}\n", new);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
        assert_eq!(apply_one(directory.path(), &document).unwrap(), (file, "unchanged"));
    }

    #[test]
    fn a_new_object_gets_a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let document = documents("kind: HTTPRoute\nmetadata: {name: cart}\n").unwrap().remove(0);
        let (path, done) = apply_one(directory.path(), &document).unwrap();
        assert_eq!((path.file_name().unwrap().to_str(), done), (Some("httproute-cart.yaml"), "created"));
    }

    #[test]
    fn deleting_leaves_the_others_and_a_file_ends_with_its_last_object() {
        let directory = tempfile::tempdir().unwrap();
        let file = write(directory.path(), "two.yaml", TWO);
        let delete_one = |kind: &str, name: &str| {
            let place = Place { directory: Some(directory.path().to_owned()), ..Place::default() };
            delete(&Delete { kind: kind.into(), name: name.into() }, &place)
        };
        delete_one("service", "a").unwrap();
        let left = "kind: Service\nmetadata: {name: b, namespace: shop}\n";
        assert_eq!(std::fs::read_to_string(&file).unwrap(), left);
        delete_one("Service", "shop/b").unwrap();
        assert!(!file.exists());
        assert!(delete_one("Service", "b").unwrap_err().to_string().contains("there is no Service b"));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["kind: Service\n", "metadata: {name: x}\n", "kind: [\n"] {
            assert!(documents(text).is_err(), "{text}");
        }
        assert_eq!(documents("---\n# nothing\n---\n").unwrap(), []);
    }
}
