//! `docs/splits.md`: every example of the page comes out as the page says.

use std::path::Path;
use std::process::Command;

use crate::harness::objects::{self, Pod};
use crate::harness::programs::{program, repository};

const NAMESPACE: &str = "shop";

/// An example: the objects, and each line that is said of them.
struct Example {
    yaml: String,
    lines: Vec<String>,
}

/// The fenced blocks of the page: those of YAML, each with the one of text that follows it.
fn examples() -> Vec<Example> {
    let page = std::fs::read_to_string(repository().join("docs/splits.md")).expect("the page");
    let mut examples: Vec<Example> = Vec::new();
    for part in page.split("\n```").skip(1) {
        let (language, text) = part.split_once('\n').unwrap_or((part, ""));
        match language {
            "yaml" => examples.push(Example { yaml: text.to_owned(), lines: Vec::new() }),
            "text" => {
                let example = examples.last_mut().expect("text follows YAML");
                example.lines.extend(text.lines().map(str::to_owned));
            }
            _ => {}
        }
    }
    examples
}

/// The page's shop: `cart` selects the pods of both versions, `cart-v1` and `cart-v2` one each.
fn shop() -> String {
    let address = |last: u8, port: u16| ([10, 1, 0, last], port).into();
    let pods = [("web-0", "web", "v1", 1), ("cart-v1-0", "cart", "v1", 2), ("cart-v2-0", "cart", "v2", 3)];
    let pods = pods.map(|(name, app, version, last)| {
        let (account, address) = (app, address(last, 8080));
        Pod { namespace: NAMESPACE, name, app, version, account, address, meshed: true, annotations: &[] }
    });
    let both = [("cart-v1-0", address(2, 8080)), ("cart-v2-0", address(3, 8080))];
    let services = [
        ("cart", &both[..], 80),
        ("cart-v1", &both[..1], 80),
        ("cart-v2", &both[1..], 80),
        ("payments", &both[..1], 8080),
    ];
    let mut objects = vec![objects::namespace(NAMESPACE, &["web", "cart"])];
    objects.extend(pods.iter().map(Pod::yaml));
    for (number, (name, endpoints, port)) in (1..).zip(services) {
        let service = objects::service(NAMESPACE, name, ([10, 96, 0, number], port).into(), "http");
        objects.push(service + &objects::slice(NAMESPACE, name, "http", endpoints));
    }
    objects.join("---\n")
}

fn gauze(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program("gauze"));
    command.args(arguments).arg("--offline").arg("--directory").arg(directory);
    let output = command.output().expect("gauze runs");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What `METHOD PATH [NAME: VALUE] -> SHARES` of the page is proved by.
fn explained(directory: &Path, asked: &str) -> String {
    let mut words = asked.splitn(3, ' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let url = format!("http://cart{path}");
    let mut arguments = vec!["explain", "shop/web", method, &url];
    arguments.extend(words.next().into_iter().flat_map(|header| ["-H", header]));
    gauze(directory, &arguments)
}

#[test]
fn every_example_of_the_page_comes_out_as_the_page_says() {
    let examples = examples();
    assert!(examples.len() >= 10, "{} examples", examples.len());
    for Example { yaml, lines } in examples {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("shop.yaml"), shop()).expect("it is written");
        std::fs::write(folder.path().join("example.yaml"), &yaml).expect("it is written");
        assert!(!lines.is_empty(), "nothing is said of\n{yaml}");
        let got = gauze(folder.path(), &["get", "split"]);
        for line in lines {
            let (said, wanted) = match line.split_once(" -> ") {
                Some((asked, wanted)) => (explained(folder.path(), asked), wanted),
                None => (got.clone(), line.as_str()),
            };
            // A row of the table ends with what is decided and why, two blanks between them.
            let is_said =
                said.lines().any(|row| row.contains(&format!("  {wanted}  ")) || row.ends_with(wanted));
            assert!(is_said, "{yaml}\nno `{wanted}` for `{line}` in\n{said}");
        }
    }
}
