//! A directory as people and editors treat it.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn write(directory: &TempDir, file: &str, text: &str) {
    let path = directory.path().join(file);
    fs::create_dir_all(path.parent().expect("a parent")).expect("writable");
    fs::write(path, text).expect("writable");
}

/// The objects and problems of a directory, in short.
fn read_all(files: &mut Files, directory: &TempDir) -> (Vec<String>, Vec<String>) {
    let update = files.refresh(directory.path());
    (objects(files), update.problems.iter().map(ToString::to_string).collect())
}

/// Each Service with its port.
fn objects(files: &Files) -> Vec<String> {
    let port = |object: &Object| object.to_json()["spec"]["ports"][0]["port"].to_string();
    files.objects.iter().map(|(key, object)| format!("{}:{}", key.name, port(object))).collect()
}

#[test]
fn all_yaml_and_json_below_is_read_but_nothing_hidden_or_else() {
    let directory = tempfile::tempdir().expect("a directory");
    write(&directory, "a.yaml", &format!("{}---\n---\n{}", service("a", 1), service("b", 2)));
    write(&directory, "deeper/still/c.yml", &service("c", 3));
    write(
        &directory,
        "d.json",
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"d","namespace":"shop"},"spec":{"ports":[{"port":4}]}}"#,
    );
    write(&directory, ".gauze/e.yaml", &service("e", 5));
    write(&directory, ".f.yaml", &service("f", 6));
    write(&directory, "g.yaml~", &service("g", 7));
    write(&directory, "notes.txt", "hello");
    write(&directory, "empty.yaml", "# nothing\n");
    let read = read_all(&mut Files::default(), &directory);
    assert_eq!(read, (["a:1", "b:2", "c:3", "d:4"].map(str::to_owned).to_vec(), vec![]));
}

#[test]
fn a_file_that_does_not_parse_keeps_what_was_last_read_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut files = Files::default();
    write(&directory, "a.yaml", &service("a", 1));
    read_all(&mut files, &directory);
    write(&directory, "a.yaml", "apiVersion: v1\nkind: [Service\nmetadata: {}\n");
    let (objects, problems) = read_all(&mut files, &directory);
    assert_eq!(objects, ["a:1"]);
    assert!(
        problems.len() == 1
            && problems[0].starts_with("a.yaml:")
            && problems[0].contains("the 1 objects last read of it stay in force (M1001)"),
        "{problems:?}"
    );
    write(&directory, "a.yaml", &service("a", 2));
    assert_eq!(read_all(&mut files, &directory), (vec!["a:2".to_owned()], vec![]));
}

#[test]
fn an_object_that_cannot_be_used_keeps_its_last_version_and_costs_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut files = Files::default();
    write(&directory, "a.yaml", &format!("{}---\n{}", service("a", 1), service("b", 1)));
    read_all(&mut files, &directory);
    let bad = service("a", 1).replace("port: 1", "port: none");
    write(&directory, "a.yaml", &format!("{bad}---\n{}", service("b", 2)));
    let (objects, problems) = read_all(&mut files, &directory);
    assert_eq!(objects, ["a:1", "b:2"]);
    assert_eq!(
        problems,
        [
            "a.yaml:4:23: Service/shop/a spec.ports[0].port: invalid type: string \"none\", expected i32 (M1003)"
        ]
    );
}

#[test]
fn of_an_object_in_two_files_the_first_counts_until_it_goes() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut files = Files::default();
    write(&directory, "a.yaml", &service("a", 1));
    write(&directory, "b.yaml", &service("a", 2));
    let (objects, problems) = read_all(&mut files, &directory);
    assert_eq!(objects, ["a:1"]);
    assert_eq!(
        problems,
        [
            "b.yaml:1:1: Service/shop/a: the object stands in a.yaml:1:1 already, and that one counts; remove or rename one of them (M1007)"
        ]
    );
    fs::remove_file(directory.path().join("a.yaml")).expect("removable");
    assert_eq!(read_all(&mut files, &directory), (vec!["a:2".to_owned()], vec![]));
}

#[test]
fn a_directory_that_vanishes_takes_nothing_with_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut files = Files::default();
    write(&directory, "a.yaml", &service("a", 1));
    read_all(&mut files, &directory);
    let away = directory.path().with_extension("away");
    fs::rename(directory.path(), &away).expect("movable");
    let (objects, problems) = read_all(&mut files, &directory);
    assert_eq!((objects, problems.len()), (vec!["a:1".to_owned()], 1));
    fs::rename(&away, directory.path()).expect("movable");
    assert_eq!(read_all(&mut files, &directory), (vec!["a:1".to_owned()], vec![]));
}

/// The events of the next update, in short.
async fn next(updates: &mut mpsc::Receiver<Update>) -> Vec<String> {
    let update =
        timeout(Duration::from_secs(10), updates.recv()).await.expect("an update in time").expect("a source");
    let event = |event: &Event| match event {
        Event::Apply(object) => format!("apply {}", object.to_json()["spec"]["ports"][0]["port"]),
        Event::Delete(key) => format!("delete {}", key.name),
        Event::MeshNetworks(networks) => format!("networks {networks:?}"),
        Event::Synced => "synced".to_owned(),
    };
    update.events.iter().map(event).collect()
}

#[tokio::test]
async fn changes_are_told_however_an_editor_writes_them() {
    let directory = tempfile::tempdir().expect("a directory");
    write(&directory, "a.yaml", &service("a", 1));
    let mut updates = watch(directory.path()).expect("a watch");
    assert_eq!(next(&mut updates).await, ["apply 1", "synced"]);

    write(&directory, "a.yaml", &service("a", 2));
    assert_eq!(next(&mut updates).await, ["apply 2"], "written in place");

    write(&directory, ".a.yaml.swp", &service("a", 3));
    fs::rename(directory.path().join(".a.yaml.swp"), directory.path().join("a.yaml")).expect("movable");
    assert_eq!(next(&mut updates).await, ["apply 3"], "renamed over");

    write(&directory, "new/deeper/b.yaml", &service("b", 4));
    assert_eq!(next(&mut updates).await, ["apply 4"], "in a new directory");

    fs::remove_file(directory.path().join("a.yaml")).expect("removable");
    assert_eq!(next(&mut updates).await, ["delete a"], "removed");
}

#[tokio::test]
async fn a_directory_that_comes_back_is_followed_again() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("shop");
    fs::create_dir(&directory).expect("writable");
    fs::write(directory.join("a.yaml"), service("a", 1)).expect("writable");
    let mut updates = watch(&directory).expect("a watch");
    next(&mut updates).await;
    fs::rename(&directory, parent.path().join("away")).expect("movable");
    assert_eq!(next(&mut updates).await, Vec::<String>::new(), "a problem, and no event");
    fs::create_dir(&directory).expect("writable");
    fs::write(directory.join("a.yaml"), service("a", 2)).expect("writable");
    assert_eq!(next(&mut updates).await, ["apply 2"]);
}
