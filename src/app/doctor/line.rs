//! What the doctor says: one line for each thing that was looked at.
//!
//! Enters: findings. Leaves: their table, their JSON, and the exit status. Only what was really seen is called well; what
//! could not be looked at is told as such, and is not success.

use std::process::ExitCode;

use serde::Serialize;

use crate::app::output::Table;

/// From well to ill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Status {
    Ok,
    Warn,
    Fail,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at: a stable shape, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Line {
    /// A word for the thing, the same in every version.
    pub check: &'static str,
    pub status: Status,
    /// What was seen.
    pub message: String,
    /// What to do; `null` where all is well.
    pub remedy: Option<String>,
    /// False: nothing was seen, for want of rights or of input.
    #[serde(skip)]
    pub looked: bool,
}

impl Line {
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, message: message.into(), remedy: None, looked: true }
    }

    pub fn new(check: &'static str, status: Status, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status, message: message.into(), remedy: Some(remedy.into()), looked: true }
    }

    pub fn warn(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Status::Warn, message, remedy)
    }

    pub fn fail(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(check, Status::Fail, message, remedy)
    }
}

/// Why there is nothing to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    /// It was looked for, and is not there.
    Absent { what: String, remedy: &'static str },
    /// It could not be looked for.
    Unread { why: String, remedy: &'static str },
}

/// What was seen, or why not.
pub(super) type Seen<T> = Result<T, Gap>;

impl Gap {
    pub fn absent(what: impl Into<String>, remedy: &'static str) -> Self {
        Self::Absent { what: what.into(), remedy }
    }

    /// The cluster does not let this caller.
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Unread { why: why.into(), remedy: "Run the doctor as somebody who may." }
    }

    pub fn line(&self, check: &'static str) -> Line {
        match self {
            Self::Absent { what, remedy } => Line::fail(check, what, *remedy),
            Self::Unread { why, remedy } => {
                Line { looked: false, ..Line::warn(check, format!("not looked at: {why}"), *remedy) }
            }
        }
    }
}

/// 0: all is well, warnings allowed. 1: something failed. 2: nothing failed, but not all could be looked at.
pub(super) fn exit(lines: &[Line]) -> ExitCode {
    ExitCode::from(exit_status(lines))
}

fn exit_status(lines: &[Line]) -> u8 {
    if lines.iter().any(|line| line.status == Status::Fail) {
        1
    } else if lines.iter().all(|line| line.looked) {
        0
    } else {
        2
    }
}

pub(super) fn table(lines: &[Line]) -> String {
    let mut table = Table::new(&["STATUS", "CHECK"]);
    for line in lines {
        table.row(&[line.status.as_str(), line.check]);
        table.note(&line.message);
        if let Some(remedy) = &line.remedy {
            table.note(&format!("-> {remedy}"));
        }
    }
    format!("{}\n{}\n", table.render(), summary(lines))
}

fn summary(lines: &[Line]) -> String {
    let count = |status: Status| lines.iter().filter(|line| line.status == status).count();
    let unseen = lines.iter().filter(|line| !line.looked).count();
    let unseen = if unseen > 0 { format!(", {unseen} of them not looked at") } else { String::new() };
    let (ok, warn, fail) = (count(Status::Ok), count(Status::Warn), count(Status::Fail));
    format!("{ok} OK, {warn} WARN, {fail} FAIL{unseen}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_json_of_a_line_has_its_documented_shape() {
        let line = serde_json::to_value(Line::warn("nodes", "a", "b")).expect("json");
        assert_eq!(line, json!({"check": "nodes", "status": "WARN", "message": "a", "remedy": "b"}));
        let line = serde_json::to_value(Line::ok("nodes", "a")).expect("json");
        assert_eq!(line, json!({"check": "nodes", "status": "OK", "message": "a", "remedy": null}));
    }

    #[test]
    fn a_failure_outweighs_what_could_not_be_seen_and_that_outweighs_success() {
        let (ok, warn, fail) = (Line::ok("a", "b"), Line::warn("a", "b", "c"), Line::fail("a", "b", "c"));
        let unseen = Gap::refused("no").line("a");
        let absent = Gap::absent("it is not there", "Make it.").line("a");
        assert_eq!(absent.status, Status::Fail);
        for (lines, status) in [
            (vec![ok.clone(), warn.clone()], 0),
            (vec![ok.clone(), unseen.clone()], 2),
            (vec![ok, unseen, fail], 1),
            (vec![warn, absent], 1),
        ] {
            assert_eq!(exit_status(&lines), status, "{lines:?}");
        }
    }

    #[test]
    fn the_table_ends_with_the_sum() {
        let lines = [Line::ok("trust", "all"), Gap::refused("you may not").line("rights")];
        let table = table(&lines);
        assert!(
            table.contains("OK       trust\n    all\nWARN     rights\n    not looked at: you may not\n"),
            "{table}"
        );
        assert!(table.ends_with("\n1 OK, 1 WARN, 0 FAIL, 1 of them not looked at\n"), "{table}");
    }
}
