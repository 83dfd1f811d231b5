//! `gauze explain FROM METHOD URL`: what happens to a request, step by step, decided by the functions that
//! decide for real: the control plane's `translate` and the data path's `route`.

mod backend; // what is behind a share of a split
mod caller; // who asks
mod destination; // what a name in a URL stands for
mod inbound; // what the called pod says
mod resilience; // what is done when an endpoint fails
mod walk; // the steps, in order

use std::fmt::Write;
use std::net::IpAddr;

use gauze_control_plane::problem::Problem;
use gauze_model::why::Reason;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::output::{self, Format};
use crate::source::{self, Place};
use crate::table::{Cell, Table, Tone};
use crate::terminal::{self, Style};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Who calls: NAMESPACE/APP, NAMESPACE/POD, or `outside` for somebody outside the mesh
    from: String,
    /// The method, for example GET; `-` for tcp:// and https://
    #[arg(value_parser = parse_method)]
    method: Method,
    /// What it calls: http://cart/items?id=1, or tcp://store:6379 for bytes that are not HTTP
    url: Uri,
    /// A header of the request: 'NAME: VALUE'
    #[arg(short = 'H', long = "header", value_parser = parse_header, value_name = "NAME: VALUE")]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// The server name that the app's TLS asks for (https://); left out, it is the host of the URL
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Read the files of the directory only, and ask no control plane
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    output: output::Output,
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) from: String,
    pub(crate) method: Method,
    pub(crate) url: Uri,
    pub(crate) headers: HeaderMap,
    /// Of the app's own TLS, where it is not the URL's host.
    pub(crate) server_name: Option<String>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Explanation {
    pub(crate) steps: Vec<Reason>,
    pub(crate) verdict: Verdict,
    /// What is wrong with the objects that were looked at.
    pub(crate) problems: Vec<Problem>,
}

/// Where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is carried: whereto.
    Carried(String),
    /// The mesh answers itself: with what.
    Answered(String),
    /// The mesh has nothing to do with it: why.
    Outside(String),
    /// It fails: how.
    Refused(String),
}

/// Methods are case-sensitive; who writes `get` means GET.
fn parse_method(text: &str) -> Result<Method, String> {
    text.to_ascii_uppercase().parse().map_err(|_| format!("`{text}` is no method"))
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let form = || format!("`{text}` is not of the form 'NAME: VALUE'");
    let (name, value) = text.split_once(':').ok_or_else(form)?;
    let name = name.trim().parse().map_err(|_| form())?;
    Ok((name, value.trim().parse().map_err(|_| form())?))
}

pub(crate) async fn run(arguments: Arguments, place: &Place) -> anyhow::Result<Exit> {
    let world = match arguments.offline {
        true => {
            source::say_offline();
            place.files().world()?.0
        }
        false => place.source().await?.world().await?,
    };
    let asked = Asked {
        from: arguments.from,
        method: arguments.method,
        url: arguments.url,
        headers: arguments.headers.into_iter().collect(),
        server_name: arguments.server_name,
    };
    let explanation = walk::explain(&world, &asked)?;
    match arguments.output.format {
        Format::Table => print!("{}", page(&explanation, terminal::output())),
        format => output::print_value(format, &explanation.to_json())?,
    }
    Ok(if matches!(explanation.verdict, Verdict::Refused(_)) { Exit::Problems } else { Exit::Fine })
}

impl Asked {
    /// The host and port that the app dials.
    ///
    /// # Errors
    /// The URL names no host, or is not `http`.
    pub(crate) fn host(&self) -> Result<(&str, u16), Failure> {
        let port = match self.url.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            Some("tcp") if self.url.port_u16().is_none() => {
                return Err(Failure::Usage(format!(
                    "`{}` names no port; write for example tcp://store:6379",
                    self.url
                )));
            }
            Some("tcp") => 0,
            None => {
                let text = format!("`{}` has no scheme; write for example http://cart/items", self.url);
                return Err(Failure::Usage(text));
            }
            Some(other) => {
                return Err(Failure::Usage(format!(
                    "`{other}` is no scheme that is explained; write http://, https:// or tcp://"
                )));
            }
        };
        let host = self.url.host().ok_or_else(|| {
            Failure::Usage(format!("`{}` names no host; write for example http://cart/items", self.url))
        })?;
        Ok((host.trim_matches(['[', ']']), self.url.port_u16().unwrap_or(port)))
    }

    /// Method and path of the request; `None`: there are none to see.
    pub(crate) fn http(&self) -> Option<(String, String)> {
        (!self.is_opaque()).then(|| (self.method.to_string(), self.url.path().to_owned()))
    }

    pub(crate) fn is_opaque(&self) -> bool {
        self.is_tls() || self.url.scheme_str() == Some("tcp")
    }

    /// What the app's own TLS asks for; an address is nothing that it may ask for (RFC 6066, 3).
    pub(crate) fn server_name(&self) -> Option<&str> {
        let host = self.url.host().filter(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().is_err());
        self.server_name.as_deref().or(host)
    }

    /// The app speaks TLS itself: there are no requests to see.
    pub(crate) fn is_tls(&self) -> bool {
        self.url.scheme_str() == Some("https")
    }
}

impl Explanation {
    fn to_json(&self) -> serde_json::Value {
        let (verdict, text) = match &self.verdict {
            Verdict::Carried(text) => ("carried", text),
            Verdict::Answered(text) => ("answered", text),
            Verdict::Outside(text) => ("outside", text),
            Verdict::Refused(text) => ("refused", text),
        };
        json!({ "verdict": verdict, "text": text, "steps": self.steps, "problems": self.problems })
    }
}

/// The numbered steps, and where it ends.
fn page(explanation: &Explanation, style: Style) -> String {
    let mut table = Table::new(&["", "STEP", "DECIDED", "BECAUSE"]);
    for (index, step) in explanation.steps.iter().enumerate() {
        let number = format!("{:>2}", index + 1);
        let because = Cell::new(because(step), Tone::Quiet);
        table.push(vec![number.into(), step.step.clone().into(), step.decided.clone().into(), because]);
    }
    let (mark, text) = match &explanation.verdict {
        Verdict::Carried(text) => (style.green("→ carried"), text),
        Verdict::Answered(text) => (style.yellow("→ answered by the mesh"), text),
        Verdict::Outside(text) => (style.yellow("→ outside the mesh"), text),
        Verdict::Refused(text) => (style.red("→ refused"), text),
    };
    let mut page = format!("{}{mark}: {text}\n", table.render(style));
    for problem in &explanation.problems {
        let _ = writeln!(page, "{} {problem}", style.red("problem:"));
    }
    page
}

/// The reason, and the line of the user's YAML where it stands.
fn because(step: &Reason) -> String {
    match &step.origin {
        Some(origin) if step.decided.contains(&origin.to_string()) => step.because.clone(),
        Some(origin) if step.because.is_empty() => origin.to_string(),
        Some(origin) => format!("{} ({origin})", step.because),
        None => step.because.clone(),
    }
}

#[cfg(test)]
mod tests;
