//! `gauze status`: one screen about the mesh: releases, replicas, sidecars, certificates, refusals.

use std::fmt::Write;
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::check::facts::{Answer, Facts};
use crate::check::{Count, duration, gather, refused};
use crate::cluster::{Cluster, Replicas};
use crate::directory::Directory;
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::pod;
use crate::source::{Place, Source};
use crate::terminal::{self, Style};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: output::Output,
}

/// What is shown.
#[derive(Clone, Debug, PartialEq)]
struct Status {
    /// Where one looks: the context and its API server, or the directory.
    place: String,
    control_plane: Option<String>,
    /// Ready and wished replicas; `None` in a directory.
    replicas: Option<(i32, i32)>,
    leader: Option<String>,
    /// Replicas that are ready and gave no answer: what they know is missing below.
    silent: usize,
    sidecars: Count,
    /// Seconds until root and own certificate end.
    certificates: Option<(u64, u64)>,
    refusals: Vec<String>,
}

pub(crate) async fn run(arguments: Arguments, place: &Place) -> anyhow::Result<Exit> {
    let status = match place.source().await? {
        Source::Directory(directory) => of_directory(&directory).await?,
        Source::Cluster(cluster) => of_cluster(&cluster).await?,
    };
    match arguments.output.format {
        Format::Table => print!("{}", status.page(terminal::output())),
        format => output::print_value(format, &status.to_json())?,
    }
    Ok(if status.is_well() { Exit::Fine } else { Exit::Problems })
}

async fn of_directory(directory: &Directory) -> anyhow::Result<Status> {
    directory.exists()?;
    let path = directory.path.display();
    let Some(control_plane) = directory.served().await else {
        let text = format!("no control plane runs in {path}; `gauze demo` starts one");
        return Err(Failure::Unreachable(text).into());
    };
    let (about, proxies) =
        tokio::try_join!(control_plane.get_json("/about"), control_plane.get_json("/proxies"))?;
    let world = Source::Directory(directory.clone()).world().await?;
    let answer = Answer { about, proxies, problems: Vec::new() };
    let pods = world.pods().map(AsRef::as_ref).filter(|pod| pod::has_live_sidecar(pod));
    Ok(Status {
        place: format!("directory {path}"),
        replicas: None,
        leader: None,
        silent: 0,
        sidecars: Count::of(pods, [&answer].into_iter()),
        ..Status::of([&answer].into_iter(), now())
    })
}

async fn of_cluster(cluster: &Cluster) -> anyhow::Result<Status> {
    let facts = gather(cluster, false).await?;
    let replicas = match &facts.control_plane {
        Ok(Some(replicas)) => replicas,
        Ok(None) => return Err(Failure::Unreachable(cluster.not_installed()).into()),
        Err(why) => return Err(Failure::Unreachable(why.clone()).into()),
    };
    if let Err(why) = &facts.pods {
        return Err(Failure::Unreachable(why.clone()).into());
    }
    let Cluster { name, server, .. } = cluster;
    let kubernetes = facts.kubernetes.trim_start_matches('v');
    Ok(of_facts(&facts, replicas, format!("{name}, Kubernetes {kubernetes}, {server}")))
}

fn of_facts(facts: &Facts, replicas: &Replicas, place: String) -> Status {
    let status = replicas.deployment.status.as_ref();
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or(0);
    Status {
        place,
        replicas: Some((ready, replicas.deployment.spec.replicas.unwrap_or(1))),
        leader: replicas.leader.clone(),
        silent: facts.answers.iter().filter(|(_, answer)| answer.is_err()).count(),
        sidecars: Count::of(facts.sidecars(), facts.answered()),
        ..Status::of(facts.answered(), facts.now)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Status {
    /// What the control plane says of itself.
    fn of<'a>(answers: impl Iterator<Item = &'a Answer> + Clone, now: u64) -> Status {
        let about = answers.clone().next().map_or(&Value::Null, |answer| &answer.about);
        let left = |what: &str| Some(about["certificates"][what].as_u64()?.saturating_sub(now));
        Status {
            place: String::new(),
            control_plane: about["version"].as_str().map(str::to_owned),
            replicas: None,
            leader: None,
            silent: 0,
            sidecars: Count::default(),
            certificates: left("rootEnds").zip(left("ownEnds")),
            refusals: refused(answers),
        }
    }

    /// Somebody serves, and nobody refuses.
    fn is_well(&self) -> bool {
        self.control_plane.is_some() && self.silent == 0 && self.refusals.is_empty()
    }

    fn page(&self, style: Style) -> String {
        let mut page = String::new();
        let mut line = |what: &str, text: &str| {
            let _ = writeln!(page, "{}  {text}", style.bold(&format!("{what:<13}")));
        };
        line("place", &self.place);
        let control_plane = self.control_plane.as_deref().unwrap_or("does not answer");
        line(
            "release",
            &format!("control plane {control_plane}, this command {}", env!("CARGO_PKG_VERSION")),
        );
        if let Some((ready, wished)) = self.replicas {
            let leader = self
                .leader
                .as_deref()
                .map_or_else(|| "no leader".to_owned(), |leader| format!("leader {leader}"));
            let silent = match self.silent {
                0 => String::new(),
                silent => format!(", {silent} cannot be asked (gauze check says why)"),
            };
            line("control plane", &format!("{ready}/{wished} replicas ready, {leader}{silent}"));
        }
        let Count { meshed, connected, current, .. } = self.sidecars;
        line("sidecars", &format!("{connected}/{meshed} connected, {current} up to date"));
        if let Some((root, own)) = self.certificates {
            let (root, own) = (duration(root), duration(own));
            line("certificates", &format!("the root ends in {root}, the control plane's own in {own}"));
        }
        match self.refusals.as_slice() {
            [] => line("refusals", "none"),
            refusals => refusals.iter().for_each(|refusal| line("refusal", &style.red(refusal))),
        }
        page
    }

    fn to_json(&self) -> Value {
        let replicas = self.replicas.map(|(ready, wished)| json!({ "ready": ready, "wished": wished }));
        let certificates =
            self.certificates.map(|(root, own)| json!({ "rootSecondsLeft": root, "ownSecondsLeft": own }));
        let Count { meshed, connected, current, unconnected } = &self.sidecars;
        json!({
            "place": self.place,
            "release": { "controlPlane": self.control_plane, "gauze": env!("CARGO_PKG_VERSION") },
            "replicas": replicas,
            "leader": self.leader,
            "silent": self.silent,
            "sidecars": { "meshed": meshed, "connected": connected, "current": current, "unconnected": unconnected },
            "certificates": certificates,
            "refusals": self.refusals,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::facts::example;

    #[test]
    fn one_screen_says_how_the_mesh_is() {
        let facts = example::well();
        let replicas = facts.control_plane.clone().unwrap().unwrap();
        let status =
            of_facts(&facts, &replicas, "context dev, Kubernetes 1.36.4, https://127.0.0.1:6443".to_owned());
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "place          context dev, Kubernetes 1.36.4, https://127.0.0.1:6443
release        control plane {version}, this command {version}
control plane  1/1 replicas ready, leader gauze-control-plane-6f9c-x2v1p
sidecars       1/1 connected, 1 up to date
certificates   the root ends in 3600 days, the control plane's own in 20 h
refusals       none
"
        );
        assert_eq!(status.page(Style::PLAIN), expected);
        assert!(status.is_well());
        let silent = Facts { answers: vec![("a".to_owned(), Err("no".to_owned()))], ..facts };
        let status = of_facts(&silent, &replicas, String::new());
        assert!(!status.is_well() && status.page(Style::PLAIN).contains("1 cannot be asked"));
    }
}
