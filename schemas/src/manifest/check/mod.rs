//! The second pass, second half: the rules for values and across fields, on an App that has the right shape.

mod changes;
mod grants;
mod health;
mod network;
mod placement;
mod run;
mod storage;
mod unit_text;

use std::collections::BTreeMap;

pub(crate) use run::{OTHER_UNITS, RESERVED_UNITS};
pub(crate) use storage::NOT_KEPT;

use super::problem::{Bad, Problem, Problems, Side, join};
use super::rule::Rule;
use super::text::{count, guess, quote};
use crate::app::{App, Mode, Standby};
use crate::name::{self, check_name};

/// Most labels, and most annotations.
pub const LABELS_MAX: usize = 64;
/// Longest value of an annotation, in bytes.
pub const ANNOTATION_BYTES_MAX: usize = 4096;
/// Most instances that `replicas` may ask for.
pub const REPLICAS_MAX: u32 = 1000;

/// Longest name that is proposed in place of a wrong one, in bytes.
const PROPOSAL_MAX: usize = 40;

/// Adds every rule that `app` breaks. Nothing is said about fields in `bad`, whose problems are known.
pub(super) fn check(app: &App, bad: &Bad, problems: &mut Problems) {
    let mut checker = Checker { app, bad, problems };
    checker.header();
    checker.modes();
    checker.run();
    checker.vip();
    checker.database();
    checker.placement();
    checker.changes();
    checker.health();
    checker.grants();
}

struct Checker<'a> {
    app: &'a App,
    bad: &'a Bad,
    problems: &'a mut Problems,
}

impl Checker<'_> {
    fn value(&mut self, pointer: &str, rule: Rule, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.report(pointer, Side::Value, rule, message.into(), hint.into());
    }

    fn key(&mut self, pointer: &str, rule: Rule, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.report(pointer, Side::Key, rule, message.into(), hint.into());
    }

    fn report(&mut self, pointer: &str, side: Side, rule: Rule, message: String, hint: Option<String>) {
        self.add(Problem { pointer: pointer.to_owned(), side, mark: None, line: None, rule, message, hint });
    }

    fn add(&mut self, problem: Problem) {
        if !self.bad.covers(&problem.pointer) {
            self.problems.push(problem);
        }
    }

    /// Whether the field is as the user wrote it, or absent because the user left it out.
    fn sound(&self, pointer: &str) -> bool {
        !self.bad.covers(pointer)
    }

    fn header(&mut self) {
        let App { api_version, kind, metadata, .. } = self.app;
        if api_version != crate::API_VERSION {
            let message = format!("{} is not a version of this API", quote(api_version));
            self.value("/apiVersion", Rule::ApiVersion, message, format!("write `apiVersion: {}`", crate::API_VERSION));
        }
        if kind != KIND {
            let message = format!("there is no kind {}", quote(kind));
            self.value("/kind", Rule::Kind, message, format!("write `kind: {KIND}`"));
        }
        self.name("/metadata/name", Rule::Name, &metadata.name);
        self.labels("/metadata/labels", &metadata.labels);
        self.at_most("/metadata/annotations", metadata.annotations.len(), LABELS_MAX, "annotation");
        for (key, value) in &metadata.annotations {
            let pointer = join("/metadata/annotations", key);
            if let Err(error) = name::check_label_key(key) {
                self.key(&pointer, Rule::Annotation, format!("{}: {error}", quote(key)), None);
            }
            self.at_most(&pointer, value.len(), ANNOTATION_BYTES_MAX, "byte");
            if value.contains('\0') {
                self.value(&pointer, Rule::ControlCharacter, "an annotation has no NUL character", None);
            }
        }
    }

    fn labels(&mut self, at: &str, labels: &BTreeMap<String, String>) {
        self.at_most(at, labels.len(), LABELS_MAX, "label");
        for (key, value) in labels {
            let pointer = join(at, key);
            if let Err(error) = name::check_label_key(key) {
                self.key(&pointer, Rule::Label, format!("{}: {error}", quote(key)), None);
            }
            if let Err(error) = name::check_label_value(value) {
                self.value(&pointer, Rule::Label, format!("{}: {error}", quote(value)), None);
            }
        }
    }

    /// Checks a name, and proposes one that would do.
    fn name(&mut self, pointer: &str, rule: Rule, given: &str) {
        let Err(error) = check_name(given) else { return };
        let mut proposal: String = given
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
            .collect();
        proposal = proposal.trim_matches('-').to_owned();
        let hint = (proposal.len() <= PROPOSAL_MAX && check_name(&proposal).is_ok()).then(|| format!("{} would do", quote(&proposal)));
        self.value(pointer, rule, format!("{} is no name: {error}", quote(given)), hint);
    }

    fn at_most(&mut self, pointer: &str, number: usize, most: usize, noun: &str) {
        if number > most {
            self.value(pointer, Rule::TooLong, format!("{} here, and at most {most} are allowed", count(number, noun)), None);
        }
    }

    /// What each mode allows and asks for.
    fn modes(&mut self) {
        let spec = &self.app.spec;
        if spec.replicas.is_some_and(|n| !(1..=REPLICAS_MAX).contains(&n)) {
            self.value("/spec/replicas", Rule::OutOfRange, format!("`replicas` is not between 1 and {REPLICAS_MAX}"), None);
        }
        if !self.sound("/spec/mode") {
            return;
        }
        let mode = spec.mode.as_str();
        if spec.mode != Mode::Singleton && spec.standby == Standby::Hot {
            let message = format!("mode `{mode}` has no standbys");
            self.value("/spec/standby", Rule::StandbyRefused, message, "leave it out, or write `mode: Singleton`".to_owned());
        }
        match spec.mode {
            Mode::Replicas if spec.replicas.is_none() => {
                self.value("/spec/replicas", Rule::ReplicasMissing, "mode `Replicas` needs `replicas`", "add `replicas: 3`".to_owned());
            }
            Mode::Singleton | Mode::Spread if spec.replicas.is_some() => {
                let hint = match spec.mode {
                    Mode::Singleton => "a Singleton has one active instance; for several write `mode: Replicas`",
                    _ => "Spread runs on every eligible node; for a number write `mode: Replicas`",
                };
                self.key("/spec/replicas", Rule::ReplicasRefused, format!("mode `{mode}` has no `replicas`"), hint.to_owned());
            }
            _ => {}
        }
        if spec.mode != Mode::Ring && spec.ring.is_some() {
            self.key(
                "/spec/ring",
                Rule::RingRefused,
                format!("mode `{mode}` has no partitions"),
                "leave it out, or write `mode: Ring`".to_owned(),
            );
        }
        if spec.mode != Mode::Singleton && spec.database.is_some() {
            let message = format!("mode `{mode}` has no database: it would have several writers");
            self.key("/spec/database", Rule::DatabaseRefused, message, "leave it out, or write `mode: Singleton`".to_owned());
        }
        if spec.ring.is_some_and(|ring| !(1..=crate::partition::PARTITIONS_MAX).contains(&ring.partitions)) {
            let message = format!("`partitions` is not between 1 and {}", crate::partition::PARTITIONS_MAX);
            self.value("/spec/ring/partitions", Rule::OutOfRange, message, None);
        }
    }

    /// An absolute path that systemd and the kernel take as it is. Says nothing more once something was wrong.
    fn path(&mut self, pointer: &str, rule: Rule, path: &str) -> bool {
        if self.control(pointer, path) {
            return false;
        }
        if path.len() > PATH_BYTES_MAX {
            self.at_most(pointer, path.len(), PATH_BYTES_MAX, "byte");
            return false;
        }
        if !path.starts_with('/') {
            self.value(pointer, rule, format!("{} is not an absolute path", quote(path)), "a path begins with `/`".to_owned());
            return false;
        }
        true
    }

    /// Says so if `text` has a NUL, a line break or another control character.
    fn control(&mut self, pointer: &str, text: &str) -> bool {
        let Some(bad) = text.chars().find(|c| c.is_control() && *c != '\t') else { return false };
        let message = format!("the character {} cannot stand here", quote(&bad.to_string()));
        self.value(pointer, Rule::ControlCharacter, message, None);
        true
    }
}

/// The only kind of object that users write.
pub(super) const KIND: &str = "App";

/// Longest path, in bytes: the kernel's PATH_MAX without its final NUL.
pub const PATH_BYTES_MAX: usize = 4095;

/// Whether a document with this `kind` is an App, if perhaps a misspelt one.
pub(super) fn meant_as_app(kind: &str) -> bool {
    guess(kind, [KIND]).is_some()
}
