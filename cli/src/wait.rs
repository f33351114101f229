//! `wait`: until objects are as asked for, also those that do not exist yet.
//!
//! A condition counts only where it is about the spec that is stored: a status about an older generation is no answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use crate::args::{FileArgs, duration};
use crate::client::{Client, ClientError, encode};
use crate::error::{CliError, Exit};
use crate::input;
use crate::io::Io;
use crate::resource::{self, Kind};
use crate::select::labels::Selector;
use crate::select::path::{self, Path};

/// How often it is looked.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Looks in a row that must not find an object before it counts as gone: controllers read from caches.
const MISSED_MIN: u32 = 2;

/// `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Apps and nodes, which need not exist yet: `app/database node/n1`, `app database cache`
    #[arg(required_unless_present_any = ["files", "all", "selector"], value_name = "KIND [NAME]... | KIND/NAME")]
    resources: Vec<String>,

    /// What to wait for: `condition=Ready`, `condition=Degraded=False`, `delete`, `jsonpath='{.status.ready}'=3/3`, or a path that shall
    /// lead to anything
    #[arg(long = "for", value_name = "CONDITION", value_parser = Goal::parse)]
    goal: Goal,

    /// Wait for the Apps that these files name
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", conflicts_with_all = ["resources", "all", "selector"])]
    files: Vec<PathBuf>,

    /// Also read the folders within folders
    #[arg(short = 'R', long, requires = "files")]
    recursive: bool,

    /// All objects of the kind; the Apps where none is named
    #[arg(long, conflicts_with = "selector")]
    all: bool,

    /// The objects of the kind with such labels; the Apps where none is named
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,

    /// Longest time to wait, for all of them together; 0s looks once
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq)]
enum Goal {
    Condition { kind: String, status: String },
    Delete,
    Path { text: String, path: Path, value: Option<String> },
}

impl Goal {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(condition) = text.strip_prefix("condition=") {
            let (kind, status) = condition.split_once('=').unwrap_or((condition, "True"));
            let status = ["True", "False", "Unknown"].into_iter().find(|known| known.eq_ignore_ascii_case(status));
            let status = status.ok_or("a condition is True, False or Unknown: condition=Ready=True")?;
            if kind.is_empty() || !kind.chars().all(|c| c.is_ascii_alphanumeric()) {
                return Err("which condition? condition=Ready".to_owned());
            }
            let mut letters = kind.chars();
            let kind = letters.next().map(|first| format!("{}{}", first.to_ascii_uppercase(), letters.as_str())).unwrap_or_default();
            return Ok(Self::Condition { kind, status: status.to_owned() });
        }
        if let Some(rest) = text.strip_prefix("jsonpath=") {
            let (path, value) = match rest.rfind('}') {
                Some(end) => (&rest[..=end], &rest[end + 1..]),
                None => rest.split_at(rest.find('=').unwrap_or(rest.len())),
            };
            let value = match value.strip_prefix('=') {
                Some(value) => Some(value.to_owned()),
                None if value.is_empty() => None,
                None => return Err(format!("{value:?} follows the path: jsonpath='{{.status.ready}}'=3/3")),
            };
            let read = Path::relaxed(path).map_err(|error| error.to_string())?;
            return Ok(Self::Path { text: path.to_owned(), path: read, value });
        }
        match text {
            "delete" => Ok(Self::Delete),
            "create" => Err("wait also waits for what does not exist yet: condition=Ready".to_owned()),
            "ready" | "Ready" => Err("that is a condition: condition=Ready".to_owned()),
            _ => Err("write condition=NAME[=STATUS], delete, or jsonpath='{PATH}'[=VALUE]".to_owned()),
        }
    }

    /// Whether `object` is so, or what it is instead.
    fn judge(&self, object: Option<&Value>) -> Result<(), String> {
        let Some(object) = object else { return Err("it does not exist yet".to_owned()) };
        match self {
            Self::Delete => Err(left(object)),
            Self::Path { text, path, value } => match (path.all(object).as_slice(), value) {
                ([], _) => Err(format!("{text} leads to nothing")),
                (_, None) => Ok(()),
                (found, Some(wanted)) => {
                    let found = found.iter().map(|value| path::text(value)).collect::<Vec<_>>().join(" ");
                    if found == *wanted { Ok(()) } else { Err(format!("{text} is {found:?}")) }
                }
            },
            Self::Condition { kind, status } => condition(object, kind, status),
        }
    }

    fn met(&self) -> &'static str {
        if matches!(self, Self::Delete) { "deleted" } else { "condition met" }
    }
}

fn condition(object: &Value, kind: &str, wanted: &str) -> Result<(), String> {
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    if object.get("node").is_some() {
        let state = text(object, "state");
        let holds = if state == "Ready" { "True" } else { "False" };
        return match kind {
            "Ready" if holds == wanted => Ok(()),
            "Ready" => Err(format!("it is {state}")),
            _ => Err("a node has the condition Ready only".to_owned()),
        };
    }
    let Some(status) = object.get("status") else { return Err("it has no status yet".to_owned()) };
    let generation = object.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0);
    let observed = status.get("observedGeneration").and_then(Value::as_u64).unwrap_or(0);
    if observed < generation {
        return Err(format!("the status is about generation {observed}, {generation} is stored"));
    }
    let all = status.get("conditions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let Some(found) = all.iter().find(|condition| text(condition, "type") == kind) else {
        // What is not mentioned does not hold.
        return if wanted == "False" { Ok(()) } else { Err(format!("it has no condition {kind}")) };
    };
    if text(found, "status") == wanted {
        return Ok(());
    }
    let message = text(found, "message");
    let message = if message.is_empty() { message } else { format!(": {message}") };
    Err(format!("{kind} is {} ({}{message})", text(found, "status"), text(found, "reason")))
}

fn left(object: &Value) -> String {
    let instances = object.pointer("/status/instances").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let nodes: Vec<&str> = instances.iter().filter_map(|instance| instance.get("node")?.as_str()).collect();
    match (object.pointer("/metadata/deletionTimestamp").is_some_and(Value::is_string), nodes.is_empty()) {
        (true, false) => format!("it is still on {}", nodes.join(", ")),
        (true, true) => "it is being deleted".to_owned(),
        (false, _) => "it is there, and nobody asked for its deletion".to_owned(),
    }
}

/// An object that is waited for.
#[derive(Debug, Default)]
struct Target {
    /// Uid at the first look: another one is another object of the same name.
    uid: Option<String>,
    missed: u32,
    said: String,
    met: bool,
}

/// Whose state is waited for.
enum Whom {
    Named(Vec<(Kind, String)>),
    Matching(Kind, Option<Selector>),
}

fn whom(args: &WaitArgs) -> Result<Whom, CliError> {
    if !args.files.is_empty() {
        let files = FileArgs { files: args.files.clone(), recursive: args.recursive };
        let apps = input::read(&files, &mut std::io::stdin())?;
        return Ok(Whom::Named(apps.into_iter().map(|parsed| (Kind::App, parsed.app.metadata.name)).collect()));
    }
    let usage = |message: &str, hint: &str| CliError::Usage { message: message.to_owned(), hint: Some(hint.to_owned()) };
    let words = if args.resources.is_empty() { vec!["apps".to_owned()] } else { args.resources.clone() };
    let selections = resource::parse(&words, &[Kind::App, Kind::Node])?;
    if args.all || args.selector.is_some() {
        let selector = args.selector.as_deref().map(Selector::parse).transpose();
        let selector = selector.map_err(|reason| CliError::Select { what: "--selector", reason })?;
        return match selections.as_slice() {
            [one] if one.names.is_empty() => Ok(Whom::Matching(one.kind, selector)),
            _ => Err(usage("--all and --selector go with one kind and no names", "clusterctl wait --for=condition=Ready apps --all")),
        };
    }
    let mut named = Vec::new();
    for selection in selections {
        if selection.names.is_empty() {
            return Err(usage(&format!("which {}?", selection.kind.singular()), "name it, or say --all"));
        }
        named.extend(selection.names.into_iter().map(|name| (selection.kind, name)));
    }
    Ok(Whom::Named(named))
}

/// Waits, says for each object when it is so, and at the end of the time what each of the others was seen to be.
pub(crate) fn run(args: &WaitArgs, connect: impl FnOnce() -> Result<Client, CliError>, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let whom = whom(args)?;
    let client = connect()?;
    let end = Instant::now() + args.timeout;
    let mut targets: BTreeMap<(Kind, String), Target> = BTreeMap::new();
    if let Whom::Named(named) = &whom {
        targets.extend(named.iter().map(|key| (key.clone(), Target::default())));
    }
    loop {
        let silent = match look(&whom, &client, end, &mut targets) {
            Ok(objects) => {
                take(&args.goal, &objects, &mut targets, io)?;
                None
            }
            Err(error @ ClientError::Unreachable { .. }) => Some(error),
            Err(error) => return Err(error.into()),
        };
        let nobody = targets.is_empty() && args.goal != Goal::Delete;
        if silent.is_none() && !nobody && targets.values().all(|target| target.met) {
            return Ok(Exit::Done);
        }
        if Instant::now() >= end {
            if let Some(error) = silent {
                return Err(error.into());
            }
            if nobody {
                io.note(format_args!("error: nothing to wait for was there in {} s", args.timeout.as_secs_f32()));
            }
            for ((kind, name), target) in targets.iter().filter(|(_, target)| !target.met) {
                let seconds = args.timeout.as_secs_f32();
                io.note(format_args!("error: {}/{name} is not as wanted after {seconds} s: {}", kind.singular(), target.said));
            }
            return Ok(Exit::Timeout);
        }
        thread::sleep(POLL_INTERVAL.min(end.saturating_duration_since(Instant::now())));
    }
}

type Objects = BTreeMap<(Kind, String), Value>;

/// The objects as they are now; those that match and were not known become targets.
fn look(whom: &Whom, client: &Client, end: Instant, targets: &mut BTreeMap<(Kind, String), Target>) -> Result<Objects, ClientError> {
    // At least one look, also with a time-out of zero.
    let budget = || end.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let mut objects = Objects::new();
    match whom {
        Whom::Named(_) => {
            let open: Vec<(Kind, String)> = targets.iter().filter(|(_, target)| !target.met).map(|(key, _)| key.clone()).collect();
            for (kind, name) in open {
                match client.get_within::<Value>(&format!("/v1/{}/{}", kind.plural(), encode(&name)), budget()) {
                    Ok(object) => drop(objects.insert((kind, name), object)),
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Whom::Matching(kind, selector) => {
            let all = client.list_within::<Value>(&format!("/v1/{}", kind.plural()), budget())?.items;
            for object in all.into_iter().filter(|object| selector.as_ref().is_none_or(|selector| selector.matches(object))) {
                if let Some(name) = kind.name_in(&object).map(str::to_owned) {
                    targets.entry((*kind, name.clone())).or_default();
                    objects.insert((*kind, name), object);
                }
            }
        }
    }
    Ok(objects)
}

fn take(goal: &Goal, objects: &Objects, targets: &mut BTreeMap<(Kind, String), Target>, io: &mut Io<'_>) -> Result<(), CliError> {
    let mut lines = BTreeSet::new();
    for (key, target) in targets.iter_mut().filter(|(_, target)| !target.met) {
        let object = objects.get(key);
        let uid = object.and_then(|object| object.pointer("/metadata/uid")).and_then(Value::as_str).map(str::to_owned);
        let other = target.uid.is_some() && uid.is_some() && target.uid != uid;
        if target.uid.is_none() {
            target.uid = uid;
        }
        target.missed = if object.is_none() { target.missed + 1 } else { 0 };
        let judged = match goal {
            Goal::Delete if other || target.missed >= MISSED_MIN => Ok(()),
            Goal::Delete if object.is_none() => Err("it was not found just now".to_owned()),
            _ => goal.judge(object),
        };
        match judged {
            Ok(()) => {
                target.met = true;
                lines.insert(format!("{}/{} {}\n", key.0.singular(), key.1, goal.met()));
            }
            Err(said) => target.said = said,
        }
    }
    io.out(&lines.into_iter().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn app(generation: u64, observed: u64, ready: &str) -> Value {
        json!({"metadata": {"name": "db", "generation": generation}, "status": {"observedGeneration": observed, "ready": "0/1",
            "conditions": [{"type": "Ready", "status": ready, "reason": "NoEligibleNode", "message": "no node fits"}]}})
    }

    #[test]
    fn goals_are_read_and_mistakes_told() {
        let condition = |kind: &str, status: &str| Ok(Goal::Condition { kind: kind.to_owned(), status: status.to_owned() });
        assert_eq!(Goal::parse("condition=Ready"), condition("Ready", "True"));
        assert_eq!(Goal::parse("condition=ready=false"), condition("Ready", "False"));
        assert_eq!(Goal::parse("delete"), Ok(Goal::Delete));
        for (text, wanted) in
            [("jsonpath={.a}=b=c", Some("b=c")), ("jsonpath=.a=b", Some("b")), ("jsonpath='{.a}'", None), ("jsonpath={.a}", None)]
        {
            match Goal::parse(text) {
                Ok(Goal::Path { value, .. }) => assert_eq!(value.as_deref(), wanted, "{text}"),
                // Quotation marks that no shell took away.
                other => assert!(text.contains('\''), "{text}: {other:?}"),
            }
        }
        for (text, part) in [
            ("Ready", "condition=Ready"),
            ("condition=", "which condition?"),
            ("condition=Ready=yes", "True, False or Unknown"),
            ("create", "does not exist yet"),
            ("jsonpath={.a", "no closing brace"),
            ("jsonpath={.a}b", "follows the path"),
            ("deleted", "write condition=NAME"),
        ] {
            let error = Goal::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_status_about_an_older_spec_is_no_answer() {
        let judge = |goal: &str, object: &Value| Goal::parse(goal).unwrap().judge(Some(object));
        assert_eq!(judge("condition=Ready", &app(2, 2, "True")), Ok(()));
        assert_eq!(judge("condition=Ready", &app(3, 2, "True")), Err("the status is about generation 2, 3 is stored".to_owned()));
        assert_eq!(judge("condition=Ready", &app(2, 2, "False")), Err("Ready is False (NoEligibleNode: no node fits)".to_owned()));
        assert_eq!(judge("condition=Degraded=False", &app(2, 2, "True")), Ok(()));
        assert_eq!(judge("condition=Degraded", &app(2, 2, "True")), Err("it has no condition Degraded".to_owned()));
        assert_eq!(judge("jsonpath={.status.ready}=1/1", &app(2, 2, "True")), Err("{.status.ready} is \"0/1\"".to_owned()));
        assert_eq!(judge("jsonpath={.status.ready}=0/1", &app(2, 2, "True")), Ok(()));
        assert_eq!(judge("jsonpath={.status.x}", &app(2, 2, "True")), Err("{.status.x} leads to nothing".to_owned()));
        let node = json!({"node": {"name": "n1"}, "state": "NotReady"});
        assert_eq!(judge("condition=Ready", &node), Err("it is NotReady".to_owned()));
        assert_eq!(judge("condition=Ready=False", &node), Ok(()));
    }
}
