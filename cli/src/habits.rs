//! Commands and flags that users of kubectl, Nomad and systemd type out of habit, and what they are called here.

use std::ffi::OsString;

use clap::error::ErrorKind;

/// First word, second word (empty: any or none), and what to say.
const VERBS: &[(&str, &str, &str)] = &[
    ("annotate", "", "annotations are part of the manifest: change it, and clusterctl apply -f FILE"),
    (
        "api-resources",
        "",
        "kinds are apps, nodes and assignments: clusterctl get --help lists them, clusterctl explain app tells the fields",
    ),
    (
        "attach",
        "",
        "what an App writes is in the journal of its node: journalctl CLUSTERCTL_APP=NAME -f, or the last lines by clusterctl describe app NAME",
    ),
    ("autoscale", "", "there is no autoscaling: set spec.replicas in the manifest, and clusterctl apply -f FILE"),
    ("auth", "", "who may is decided by the token that is sent: --token-file"),
    ("cluster-info", "", "clusterctl version says who answers and who leads, clusterctl get nodes who is there"),
    ("cordon", "", "clusterctl node cordon NODE"),
    ("uncordon", "", "clusterctl node uncordon NODE"),
    ("drain", "", "clusterctl node drain NODE"),
    ("taint", "", "there are no taints: label the node in its agent.yaml, and write spec.placement.avoidLabels"),
    ("cp", "", "files are not copied by clusterctl; use scp with the node that clusterctl get app NAME names"),
    ("debug", "", "clusterctl describe app NAME tells conditions, reasons and the last log lines"),
    ("exec", "", "Apps are units on plain machines: log in to the node that clusterctl get app NAME names"),
    ("expose", "", "give the App a VIP: clusterctl explain app.spec.vip"),
    ("job", "status", "clusterctl get app NAME"),
    ("job", "run", "clusterctl apply -f FILE"),
    ("job", "stop", "clusterctl delete app NAME"),
    ("job", "", "clusterctl get apps lists what runs"),
    ("alloc", "logs", "clusterctl describe app NAME has the last lines that its unit logged"),
    ("alloc", "", "clusterctl describe app NAME lists its instances"),
    ("eval", "", "clusterctl describe app NAME tells the reason of each placement"),
    ("label", "", "labels of an App are part of its manifest (clusterctl apply -f FILE), those of a node of its agent.yaml"),
    ("patch", "", "change the manifest, and clusterctl apply -f FILE"),
    ("port-forward", "", "Apps listen on their nodes, or on their VIP: clusterctl get apps -o wide"),
    ("proxy", "", "the API is plain HTTP on each controller: curl http://127.0.0.1:7070/v1/apps"),
    ("replace", "", "clusterctl apply -f FILE"),
    ("restart", "", "clusterctl describe app NAME names the unit: systemctl restart it on its node, or clusterctl switchover APP"),
    ("rollout", "status", "clusterctl wait --for=condition=Ready app/NAME"),
    ("rollout", "undo", "clusterctl undo APP"),
    ("rollout", "history", "clusterctl get revisions APP"),
    ("rollout", "restart", "clusterctl describe app NAME names the unit: systemctl restart it on its node, or clusterctl switchover APP"),
    ("rollout", "", "clusterctl wait --for=condition=Ready app/NAME"),
    ("run", "", "clusterctl create singleton NAME -- COMMAND, or: clusterctl apply -f FILE"),
    ("scale", "", "set spec.replicas in the manifest, and clusterctl apply -f FILE"),
    ("set", "", "change the manifest, and clusterctl apply -f FILE"),
    ("start", "", "clusterctl apply -f FILE makes an App run"),
    ("status", "", "clusterctl get apps,nodes"),
    ("stop", "", "clusterctl delete app NAME; to move a Singleton away: clusterctl switchover APP"),
    ("logs", "", "clusterctl logs is not built yet: clusterctl describe app NAME has the last lines, journalctl on the node has all"),
    ("list-units", "", "clusterctl get apps"),
    ("list", "", "clusterctl get apps"),
    ("ls", "", "clusterctl get apps"),
    ("ps", "", "clusterctl get apps"),
    ("show", "", "clusterctl describe app NAME"),
    ("rm", "", "clusterctl delete app NAME"),
    ("remove", "", "clusterctl delete app NAME, clusterctl node remove NODE"),
    ("deploy", "", "clusterctl apply -f FILE"),
    ("top", "", "clusterctl get nodes shows heartbeats, clusterctl describe node NAME the load"),
    ("failover", "", "clusterctl failovers shows what was taken over; to move a Singleton: clusterctl switchover APP"),
    ("members", "", "clusterctl get nodes"),
    ("help", "", "clusterctl --help, clusterctl COMMAND --help"),
];

/// Flags of other tools, and what to say.
const FLAGS: &[(&str, &str)] = &[
    ("-n", "there are no namespaces: one cluster is one namespace"),
    ("--namespace", "there are no namespaces: one cluster is one namespace"),
    ("-A", "there are no namespaces: all Apps are listed"),
    ("--all-namespaces", "there are no namespaces: all Apps are listed"),
    ("--kubeconfig", "the configuration is named by CLUSTERCTL_CONFIG"),
    ("--grace-period", "how long a unit may take to stop is its TimeoutStopSec; --timeout is how long the command waits"),
    ("--now", "delete waits until nothing is left; --wait=false does not"),
    ("--field-selector", "choose with -l LABELS, or print parts with -o jsonpath"),
    ("--replicas", "set spec.replicas in the manifest"),
    ("--record", "clusterctl events tells what changed"),
    ("--validate", "manifests are always checked; clusterctl validate -f FILE checks without a cluster"),
];

/// Kinds of other tools, and what there is instead.
const KINDS: &[(&[&str], &str)] = &[
    (&["pods", "pod", "po", "allocs", "alloc", "instances"], "instances are part of an App: clusterctl describe app NAME"),
    (&["deployments", "deployment", "deploy", "replicasets", "rs"], "that is an App with mode Replicas: clusterctl get apps"),
    (&["statefulsets", "statefulset", "sts"], "that is an App with mode Singleton or Ring: clusterctl get apps"),
    (&["daemonsets", "daemonset", "ds"], "that is an App with mode Spread: clusterctl get apps"),
    (&["jobs", "job", "cronjobs", "cj", "units", "unit"], "what runs is an App: clusterctl get apps"),
    (&["services", "service", "svc", "ingresses", "ing", "endpoints", "ep"], "an App has a VIP: clusterctl get apps -o wide"),
    (&["namespaces", "namespace", "ns"], "there are no namespaces: one cluster is one namespace"),
    (
        &["configmaps", "configmap", "cm", "secrets", "secret"],
        "configuration is in the units and their files; environment: clusterctl explain app.spec.exec",
    ),
    (
        &["persistentvolumes", "pv", "persistentvolumeclaims", "pvc", "storageclasses", "sc"],
        "data is on the nodes' own disks: clusterctl explain app.spec.database",
    ),
    (&["all"], "clusterctl get apps,nodes,assignments"),
    (&["lease", "leases", "voter", "voters", "failover", "failovers", "event", "events"], "that list stands alone: clusterctl get events"),
];

/// What there is instead of a kind of another tool.
pub(crate) fn kind(word: &str) -> Option<&'static str> {
    KINDS.iter().find(|(words, _)| words.contains(&word)).map(|(_, hint)| *hint)
}

/// What the mistake in `arguments` was probably meant to be.
pub(crate) fn hint(arguments: &[OsString], kind: ErrorKind) -> Option<&'static str> {
    let words: Vec<&str> = arguments.iter().skip(1).filter_map(|word| word.to_str()).collect();
    let mut plain = words.iter().copied().filter(|word| !word.starts_with('-'));
    let (verb, object) = (plain.next().unwrap_or_default(), plain.next().unwrap_or_default());
    match kind {
        ErrorKind::InvalidSubcommand => {
            VERBS.iter().find(|(first, second, _)| *first == verb && (second.is_empty() || *second == object)).map(|(_, _, hint)| *hint)
        }
        ErrorKind::UnknownArgument => {
            let flag = |word: &str| {
                FLAGS.iter().find(|(flag, _)| word == *flag || word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')))
            };
            words.iter().find_map(|word| flag(word)).map(|(_, hint)| *hint).or_else(|| positional(verb, object))
        }
        ErrorKind::MissingRequiredArgument => positional(verb, object),
        _ => None,
    }
}

/// A file or a name where it is not taken.
fn positional(verb: &str, object: &str) -> Option<&'static str> {
    match verb {
        "apply" if object.is_empty() => Some("clusterctl apply -f FILE, -f FOLDER, or -f - for stdin"),
        "apply" => Some("files are named with -f: clusterctl apply -f FILE"),
        "validate" | "fmt" if !object.is_empty() => Some("files are named with -f"),
        "get" => Some("a kind comes first: clusterctl get apps"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str, kind: ErrorKind) -> Option<&'static str> {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        hint(&words, kind)
    }

    #[test]
    fn the_more_exact_hint_comes_first() {
        for (at, (verb, object, _)) in VERBS.iter().enumerate() {
            let first = VERBS.iter().position(|(other, second, _)| other == verb && (second.is_empty() || second == object));
            assert_eq!(first, Some(at), "{verb} {object} is never reached");
        }
        assert!(of("clusterctl rollout status deploy/x", ErrorKind::InvalidSubcommand).is_some_and(|hint| hint.contains("wait")));
        assert_eq!(of("clusterctl frobnicate", ErrorKind::InvalidSubcommand), None);
        assert!(of("clusterctl get apps --namespace=x", ErrorKind::UnknownArgument).is_some_and(|hint| hint.contains("namespaces")));
    }
}
