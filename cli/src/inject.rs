//! `gauze inject FILE`: the sidecar put into pods and pod templates of a file, as the cluster's webhook would do it: by
//! the same functions. `--explain` says only which rule decides about each, also of pods that are in a cluster.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use anyhow::Context;
use gauze_control_plane::inject::{
    Action, Asked, Decision, Finding, INJECT, InjectionSettings, Injector, decide, inject, random_word,
};
use gauze_control_plane::world::MeshSettings;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::source::Place;
use crate::table::{Cell, Table, Tone};

mod cluster; // pods that are there already
mod templates; // where pods stand in objects

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A file of YAML, or - for stdin; with --explain also pods of a cluster, by name or app: shop/web
    file: String,
    /// Say which rule decides about each pod, and print no YAML
    #[arg(long)]
    explain: bool,
    /// A label of all namespaces that the file does not define: gauze.dev/inject=enabled
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    namespace_label: Vec<(String, String)>,
    /// The trust domain of every identity [default: cluster.local]
    #[arg(long, value_name = "NAME", env = "GAUZE_TRUST_DOMAIN")]
    trust_domain: Option<String>,
    /// Addresses in these networks belong to the mesh [default: the private ones]
    #[arg(long, value_name = "CIDR,…", env = "GAUZE_MESH_NETWORKS", value_delimiter = ',')]
    mesh_networks: Vec<IpNet>,
    /// How the decisions are printed, with --explain
    #[command(flatten)]
    output: output::Output,
    #[command(flatten)]
    injection: InjectionSettings,
}

/// What was decided about one pod or template.
struct Decided {
    /// `Deployment shop/web`.
    object: String,
    decision: Decision,
}

pub(crate) async fn run(arguments: Arguments, place: &Place) -> anyhow::Result<Exit> {
    if arguments.explain && arguments.file != "-" && !Path::new(&arguments.file).exists() {
        return cluster::explain(arguments, place).await;
    }
    let text = read(&arguments.file)?;
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("{} is no YAML", arguments.file))?;
    let mut objects: Vec<Value> = objects.into_iter().filter(|object| !object.is_null()).collect();
    let (explain, format) = (arguments.explain, arguments.output.format);
    let decided = inject_all(&mut objects, arguments, place)?;
    if decided.is_empty() {
        eprintln!("there is neither a pod nor a pod template in this file");
    }
    let refused = decided.iter().any(|decided| matches!(decided.decision.action, Action::Refuse(_)));
    match explain {
        true => show(format, &decided)?,
        false => tell(&decided),
    }
    if !explain && !refused {
        for object in &objects {
            print!("---\n{}", serde_saphyr::to_string(object)?);
        }
    }
    Ok(if refused { Exit::Problems } else { Exit::Fine })
}

fn read(file: &str) -> anyhow::Result<String> {
    if file == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
        return Ok(text);
    }
    let refused = |error: std::io::Error| {
        Failure::Usage(format!("cannot read {file}: {}; name a file of YAML, or - for stdin", error.kind()))
    };
    Ok(std::fs::read_to_string(Path::new(file)).map_err(refused)?)
}

/// Injects into every pod of these objects for which that is decided.
fn inject_all(objects: &mut [Value], arguments: Arguments, place: &Place) -> anyhow::Result<Vec<Decided>> {
    let mesh = MeshSettings::default();
    let networks = arguments.mesh_networks;
    let injector = Injector {
        settings: arguments.injection,
        trust_domain: arguments.trust_domain.unwrap_or(mesh.trust_domain),
        system_namespace: place.system_namespace.clone(),
        mesh_networks: if networks.is_empty() { mesh.mesh_networks } else { networks },
    };
    let labels: BTreeMap<_, _> = arguments.namespace_label.into_iter().collect();
    let namespaces = Namespaces {
        defined: templates::namespaces(objects),
        others: labels.get(INJECT).cloned(),
        default: place.namespace.clone().unwrap_or_else(|| "default".to_owned()),
    };
    let pods = objects.iter_mut().flat_map(templates::find);
    pods.map(|found| inject_one(found, &namespaces, &injector)).collect()
}

/// What is known of namespaces without a cluster.
struct Namespaces {
    /// Those of the file, with their label.
    defined: BTreeMap<String, Option<String>>,
    /// The label of all others.
    others: Option<String>,
    /// The namespace of objects that name none.
    default: String,
}

fn inject_one(
    found: templates::Found<'_>,
    known: &Namespaces,
    injector: &Injector,
) -> anyhow::Result<Decided> {
    let templates::Found { kind, name, namespace, misplaced, pod } = found;
    let namespace = namespace.unwrap_or_else(|| known.default.clone());
    let object = format!("{kind} {namespace}/{name}");
    let typed: Pod = serde_json::from_value(json!({ "metadata": pod["metadata"], "spec": pod["spec"] }))
        .with_context(|| format!("{object}: the pod cannot be read"))?;
    let label = known.defined.get(&namespace).cloned().unwrap_or_else(|| known.others.clone());
    let mut decision = decide(&typed, &Asked { namespace, label }, injector);
    if let Action::Inject(wishes) = &decision.action {
        *pod = inject(pod, decision.rule, &decision.reason(), wishes, injector, &random_word());
    }
    decision.warnings.extend(misplaced);
    Ok(Decided { object, decision })
}

/// On stderr, beside the YAML.
fn tell(decided: &[Decided]) {
    for Decided { object, decision } in decided {
        match &decision.action {
            Action::Inject(_) => eprintln!("{object}: injected, since {}", decision.reason()),
            Action::Leave => eprintln!("{object}: left alone, since {}", decision.reason()),
            Action::Refuse(findings) => {
                findings.iter().for_each(|finding| eprintln!("{object}: refused: {finding}"));
            }
        }
        decision.warnings.iter().for_each(|finding| eprintln!("{object}: warning: {finding}"));
    }
}

fn show(format: Format, decided: &[Decided]) -> anyhow::Result<()> {
    let mut table = Table::new(&["OBJECT", "INJECTED", "RULE", "WHY"]);
    for Decided { object, decision } in decided {
        let (word, tone) = outcome(&decision.action);
        let rule = decision.rule.name();
        table.push(vec![
            object.as_str().into(),
            Cell::new(word, tone),
            rule.into(),
            decision.reason().into(),
        ]);
    }
    output::print(format, &table, &Value::Array(decided.iter().map(value).collect()), "")?;
    if format == Format::Table {
        for Decided { object, decision } in decided {
            decision.warnings.iter().for_each(|finding| eprintln!("{object}: warning: {finding}"));
        }
    }
    Ok(())
}

fn outcome(action: &Action) -> (&'static str, Tone) {
    match action {
        Action::Inject(_) => ("yes", Tone::Good),
        Action::Leave => ("no", Tone::Quiet),
        Action::Refuse(_) => ("refused", Tone::Bad),
    }
}

fn value(Decided { object, decision }: &Decided) -> Value {
    let findings = |findings: &[Finding]| -> Value {
        let said =
            findings.iter().map(|found| json!({ "code": found.code.to_string(), "message": found.message }));
        said.collect()
    };
    let refused = match &decision.action {
        Action::Refuse(refused) => findings(refused),
        Action::Inject(_) | Action::Leave => json!([]),
    };
    json!({
        "object": object,
        "injected": outcome(&decision.action).0,
        "rule": decision.rule.name(),
        "why": decision.reason(),
        "refused": refused,
        "warnings": findings(&decision.warnings),
    })
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, as in gauze.dev/inject=enabled")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests;
