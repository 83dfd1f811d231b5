//! What became of one request, as a line of a load's ledger.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::{Answer, Protocol};
use super::load::{Outcome, Told};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub protocol: Protocol,
    /// When it was sent, in milliseconds since 1970.
    pub sent: u64,
    pub told: Told,
    /// The app that answered.
    pub app: String,
    /// The answer, where it is not the right one.
    pub what: String,
}

impl Record {
    /// `began`: when the load did, since 1970.
    pub fn of(outcome: &Outcome, began: Duration) -> Record {
        let told = outcome.told();
        Record {
            id: outcome.id.clone(),
            protocol: outcome.protocol,
            sent: u64::try_from((began + outcome.sent).as_millis()).unwrap_or(u64::MAX),
            app: outcome.answer.as_ref().map_or("", Answer::app).to_owned(),
            what: if told == Told::Answer { String::new() } else { outcome.text() },
            told,
        }
    }

    /// As a line of the ledger.
    pub fn line(&self) -> String {
        serde_json::to_string(self).expect("text and numbers") + "\n"
    }

    /// Reads a ledger; a last line that is not whole yet is left out.
    ///
    /// # Panics
    /// If it is no ledger.
    pub fn read(ledger: &str) -> Vec<Record> {
        let whole = ledger.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.map(|line| serde_json::from_str(line).expect("a line of the ledger")).collect()
    }
}
