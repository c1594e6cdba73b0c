//! The manifests that people give us: files and standard input, as objects that were checked.
//!
//! Enters: names of files. Leaves: objects to be judged, policies, nodes and namespaces; or a list of errors, each with
//! the file, the document and the field. What is not understood is refused and not left out: a verdict on half an object
//! is worse than none.
//!
//! | room | what is in it |
//! | --- | --- |
//! | `text` | YAML and JSON into documents |
//! | `kinds` | which kinds there are, and what a misspelt one may have meant |
//! | `strict` | a document into a typed object, with unknown fields |
//! | `newer` | fields that later versions of Kubernetes have |

mod kinds;
mod near;
mod newer;
mod strict;
mod text;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::k8s::crd::NodeImagePolicy;
use crate::k8s::template::TemplateKind;
use text::Notation;

/// `-` in place of a file.
const STANDARD_INPUT: &str = "-";

/// No file of manifests is longer: a cluster of 5,000 nodes prints some 150 MB.
const LONGEST_INPUT: u64 = 1024 * 1024 * 1024;

/// An object with the place it was read from.
#[derive(Clone, Debug)]
pub struct Object {
    pub place: Place,
    pub group: String,
    pub kind: String,
    pub value: Value,
}

/// Where an object stands: `pods.yaml: document 2: items[3]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub file: String,
    pub document: usize,
    /// The way through lists; empty for a document that is the object.
    pub items: String,
}

/// What is wrong, in one line: file, document, field, and the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl std::error::Error for Problem {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the inputs cannot be judged: one line a problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused(pub Vec<Problem>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.0.iter().map(|problem| problem.0.as_str()).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Refused {}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl Place {
    pub fn problem(&self, field: &str, text: impl fmt::Display) -> Problem {
        let Self { file, document, items } = self;
        let separator = if items.is_empty() || field.is_empty() || field.starts_with('[') { "" } else { "." };
        let field = format!("{items}{separator}{field}");
        let colon = if field.is_empty() { "" } else { ": " };
        Problem(format!("{file}: document {document}: {field}{colon}{text}"))
    }
}

/// What is said about a field that no version of the API has that we know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Validate {
    /// It is an error.
    #[default]
    Strict,
    /// It is a warning: for manifests of a Kubernetes that is newer than this program.
    Warn,
}

/// Reads inputs; standard input only once.
#[derive(Debug)]
pub struct Manifests {
    validate: Validate,
    standard_input_taken: bool,
    /// What was let pass, to be told.
    pub warnings: Vec<Problem>,
}

impl Manifests {
    pub fn new(validate: Validate) -> Self {
        Self { validate, standard_input_taken: false, warnings: Vec::new() }
    }

    /// All objects of some files, lists taken apart, in order.
    ///
    /// # Errors
    /// A file that cannot be read, or that holds no document: an empty input is more often a pipe that broke than a wish.
    pub fn objects(&mut self, files: &[String]) -> Result<Vec<Object>, Refused> {
        let mut objects = Vec::new();
        let mut problems = Vec::new();
        for file in files {
            if let Err(problem) = self.file(file, &mut objects) {
                problems.push(problem);
            }
        }
        if problems.is_empty() { Ok(objects) } else { Err(Refused(problems)) }
    }

    fn file(&mut self, file: &str, objects: &mut Vec<Object>) -> Result<(), Problem> {
        let (name, text) = self.text(file)?;
        let notation = if name.to_ascii_lowercase().ends_with(".json") { Notation::Json } else { Notation::Any };
        let documents = text::documents(&text, notation)
            .map_err(|error| Problem(format!("{name}: document {}: {}", error.document, error.text)))?;
        if documents.is_empty() {
            return Err(Problem(format!("{name}: no objects in it")));
        }
        for document in documents {
            let place = Place { file: name.clone(), document: document.number, items: String::new() };
            take_apart(place, document.value, None, objects)?;
        }
        Ok(())
    }

    fn text(&mut self, file: &str) -> Result<(String, String), Problem> {
        let standard = file == STANDARD_INPUT;
        let name = if standard { "standard input" } else { file };
        if standard && std::mem::replace(&mut self.standard_input_taken, true) {
            return Err(Problem("standard input: - may be given only once".to_owned()));
        }
        let mut text = String::new();
        let read = if standard {
            io::stdin().lock().take(LONGEST_INPUT + 1).read_to_string(&mut text)
        } else {
            File::open(file).and_then(|file| file.take(LONGEST_INPUT + 1).read_to_string(&mut text))
        };
        match read {
            Ok(length) if length as u64 > LONGEST_INPUT => Err(Problem(format!("{name}: longer than 1 GiB"))),
            Ok(_) => Ok((name.to_owned(), text)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Problem(format!("{name}: not text in UTF-8")))
            }
            Err(error) => Err(Problem(format!("{name}: {error}"))),
        }
    }

    /// Checks an object of a kind that is judged, field by field.
    ///
    /// # Errors
    /// What the API server would refuse, as far as it can be known without one.
    pub fn check(&mut self, object: &Object) -> Result<Checked, Refused> {
        let checked = match (object.group.as_str(), object.kind.as_str()) {
            ("", "Pod") => {
                self.typed::<Pod>(object)?;
                Checked::Pod
            }
            (group, kind) => match TemplateKind::of(group, kind) {
                Some(kind) => {
                    match kind {
                        TemplateKind::Deployment => drop(self.typed::<Deployment>(object)?),
                        TemplateKind::ReplicaSet => drop(self.typed::<ReplicaSet>(object)?),
                        TemplateKind::StatefulSet => drop(self.typed::<StatefulSet>(object)?),
                        TemplateKind::DaemonSet => drop(self.typed::<DaemonSet>(object)?),
                        TemplateKind::Job => drop(self.typed::<Job>(object)?),
                        TemplateKind::CronJob => drop(self.typed::<CronJob>(object)?),
                    }
                    Checked::Template(kind)
                }
                None => Checked::NotJudged,
            },
        };
        Ok(checked)
    }

    /// # Errors
    /// As [`Self::objects`]; an object of another kind, or one that does not fit its type; one without a name, or two of one.
    pub fn policies(&mut self, files: &[String]) -> Result<Vec<(Place, NodeImagePolicy)>, Refused> {
        self.all(files, "NodeImagePolicy", "pullguard.dev")
    }

    /// # Errors
    /// As [`Self::policies`].
    pub fn nodes(&mut self, files: &[String]) -> Result<Vec<(Place, Node)>, Refused> {
        self.all(files, "Node", "")
    }

    /// # Errors
    /// As [`Self::policies`].
    pub fn namespaces(&mut self, files: &[String]) -> Result<Vec<(Place, Namespace)>, Refused> {
        self.all(files, "Namespace", "")
    }

    fn all<T: DeserializeOwned + ResourceExt>(
        &mut self,
        files: &[String],
        kind: &str,
        group: &str,
    ) -> Result<Vec<(Place, T)>, Refused> {
        let mut found = Vec::new();
        let mut names = BTreeSet::new();
        let mut problems = Vec::new();
        for object in self.objects(files)? {
            if object.kind != kind || object.group != group {
                problems.push(object.place.problem("kind", format_args!("expected {kind}, found {}", object.kind)));
                continue;
            }
            match self.typed::<T>(&object) {
                Err(Refused(more)) => problems.extend(more),
                Ok(typed) => {
                    let name = typed.name_any();
                    if name.is_empty() {
                        problems.push(object.place.problem("metadata.name", "missing"));
                    } else if names.insert(name.clone()) {
                        found.push((object.place, typed));
                    } else {
                        problems
                            .push(object.place.problem("metadata.name", format_args!("a second {kind} named {name}")));
                    }
                }
            }
        }
        if problems.is_empty() { Ok(found) } else { Err(Refused(problems)) }
    }

    /// An object as one of its type.
    ///
    /// # Errors
    /// A field that does not fit, or that the type does not have.
    pub fn typed<T: DeserializeOwned>(&mut self, object: &Object) -> Result<T, Refused> {
        let (typed, unknown) =
            strict::read(&object.value).map_err(|problem| object.place.problem(&problem.field, problem.text))?;
        let unknown = unknown.into_iter().map(|problem| object.place.problem(&problem.field, problem.text));
        match self.validate {
            Validate::Strict => {
                let problems: Vec<Problem> = unknown.collect();
                if problems.is_empty() { Ok(typed) } else { Err(Refused(problems)) }
            }
            Validate::Warn => {
                self.warnings.extend(unknown);
                Ok(typed)
            }
        }
    }
}

/// What an object is, once it was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    Pod,
    Template(TemplateKind),
    NotJudged,
}

/// Says what is wrong with a policy that was read well but cannot be compiled.
pub fn uncompiled(place: &Place, policy: &str, error: impl fmt::Display) -> Problem {
    place.problem("", format_args!("NodeImagePolicy {policy} cannot be compiled: {error}"))
}

/// A list into its items, any object into itself. `of`: what an item of a typed list is where it does not say so.
fn take_apart(place: Place, value: Value, of: Option<(&str, &str)>, objects: &mut Vec<Object>) -> Result<(), Problem> {
    let Value::Object(mut map) = value else {
        return Err(place.problem("", "expected an object with apiVersion and kind"));
    };
    let api_version = text_of(&map, "apiVersion", of.map(|(version, _)| version), &place)?;
    let kind = text_of(&map, "kind", of.map(|(_, kind)| kind), &place)?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    kinds::check(group, version, &kind).map_err(|(field, text)| place.problem(field, text))?;
    let Some(item_kind) =
        kind.strip_suffix("List").filter(|item| kinds::is_list(group, item) || map.contains_key("items"))
    else {
        let group = group.to_owned();
        // What the item of a list leaves out.
        map.insert("apiVersion".to_owned(), api_version.clone().into());
        map.insert("kind".to_owned(), kind.clone().into());
        objects.push(Object { place, group, kind, value: Value::Object(map) });
        return Ok(());
    };
    let items = match map.remove("items") {
        Some(Value::Array(items)) => items,
        Some(Value::Null) | None => Vec::new(),
        Some(_) => return Err(place.problem("items", "expected a list")),
    };
    if let Some(field) = map.keys().find(|field| !["apiVersion", "kind", "metadata"].contains(&field.as_str())) {
        let meant =
            near::nearest(field, ["items", "metadata"]).map_or(String::new(), |near| format!("; did you mean {near}?"));
        return Err(place.problem(field, format_args!("unknown field{meant}")));
    }
    let of = (!item_kind.is_empty()).then_some((api_version.as_str(), item_kind));
    for (index, item) in items.into_iter().enumerate() {
        let separator = if place.items.is_empty() { "" } else { "." };
        let items = format!("{}{separator}items[{index}]", place.items);
        take_apart(Place { items, ..place.clone() }, item, of, objects)?;
    }
    Ok(())
}

fn text_of(map: &Map<String, Value>, field: &str, default: Option<&str>, place: &Place) -> Result<String, Problem> {
    match (map.get(field), default) {
        (Some(Value::String(text)), _) if !text.is_empty() => Ok(text.clone()),
        (None | Some(Value::Null), Some(default)) => Ok(default.to_owned()),
        (None | Some(Value::Null | Value::String(_)), _) => Err(place.problem(field, "missing")),
        (Some(_), _) => Err(place.problem(field, "expected a string")),
    }
}

#[cfg(test)]
mod tests;
