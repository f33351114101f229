//! From a hook in an App to the command that runs on this node: pure.

use cluster_schemas::app::ExecSpec;
use cluster_schemas::hooks::{HOOK_TIMEOUT_MAX, HookSpec};

use super::Command;
use super::unit_text::{PARTITIONS_FILE, ROLE_FILE, TextError, Values, check_account, check_value, socket, substitute};
use crate::local::SOCKET_VARIABLE;

/// What one run of a hook is about.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The App.
    pub app: &'a str,
    /// `onOwn` or `onRelease`.
    pub hook: &'static str,
    /// The partition.
    pub partition: u16,
    /// Epoch of its tenure.
    pub epoch: u64,
}

/// What the names of the units of an App's hooks begin with. No name of an App has a dot, so they are nobody else's.
#[must_use]
pub fn prefix(app: &str) -> String {
    format!("clusterctl-{app}.on")
}

/// Name of the unit that runs a hook for a partition.
#[must_use]
pub fn unit(app: &str, hook: &str, partition: u16) -> String {
    format!("clusterctl-{app}.{hook}.{partition}.service")
}

/// The command of one run: arguments and environment with the placeholders filled in, as the user of the App's unit.
///
/// # Errors
/// What of it cannot be handed to a program; see [`TextError`].
pub fn command(about: About<'_>, spec: &HookSpec, exec: Option<&ExecSpec>, values: &Values<'_>) -> Result<Command, TextError> {
    let About { app, hook, partition, epoch } = about;
    let fill = |field: String, text: &str| substitute(text, values).and_then(|value| check_value(&field, value));
    let arguments: Result<Vec<String>, TextError> =
        spec.command.iter().enumerate().map(|(n, argument)| fill(format!("{hook} command[{n}]"), argument)).collect();
    let arguments = arguments?;
    if arguments.is_empty() {
        return Err(TextError::NoCommand);
    }
    let mut environment = std::collections::BTreeMap::new();
    for (name, value) in &spec.environment {
        environment.insert(name.clone(), fill(format!("{hook} environment {name}"), value)?);
    }
    let folder = values.app_runtime_dir;
    let ours = [
        ("CLUSTERCTL_APP", app.to_owned()),
        ("CLUSTERCTL_NODE", values.node.to_owned()),
        ("CLUSTERCTL_HOOK", hook.to_owned()),
        ("CLUSTERCTL_PARTITION", partition.to_string()),
        ("CLUSTERCTL_EPOCH", epoch.to_string()),
        ("CLUSTERCTL_ROLE_FILE", format!("{folder}/{ROLE_FILE}")),
        ("CLUSTERCTL_PARTITIONS_FILE", format!("{folder}/{PARTITIONS_FILE}")),
        (SOCKET_VARIABLE, socket(folder)),
    ];
    // Ours win, as in the unit.
    environment.extend(ours.map(|(name, value)| (name.to_owned(), value)));
    let account = |field: &str, name: Option<&String>| name.map(|n| check_account(field, n).map(str::to_owned)).transpose();
    Ok(Command {
        unit: unit(app, hook, partition),
        description: format!("clusterctl App {app}: {hook} of partition {partition}, epoch {epoch}"),
        arguments,
        environment,
        user: account("user", exec.and_then(|e| e.user.as_ref()))?,
        group: account("group", exec.and_then(|e| e.group.as_ref()))?,
        // The validation refuses what is no time; a text of an older controller that is none waits for the longest.
        timeout: spec.timeout().unwrap_or(HOOK_TIMEOUT_MAX),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_knows_app_node_partition_and_epoch_and_runs_as_the_units_user() {
        let values = Values { node: "n1", node_address: Some("10.0.0.11"), database_path: None, app_runtime_dir: "/run/clusterctl/cache" };
        let spec = HookSpec {
            command: ["/usr/bin/warm", "--at=${node.address}", "$HOME 5%"].map(str::to_owned).to_vec(),
            environment: [("CLUSTERCTL_EPOCH", "mine"), ("LEVEL", "${node.address}")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            timeout: "1500ms".to_owned(),
        };
        let exec = ExecSpec {
            command: vec!["/usr/bin/cache".to_owned()],
            environment: Default::default(),
            user: Some("cache".to_owned()),
            group: None,
            working_directory: None,
            limits: Default::default(),
        };
        let about = About { app: "cache", hook: "onOwn", partition: 12, epoch: 7 };
        let told = command(about, &spec, Some(&exec), &values).unwrap();
        assert_eq!(told.unit, "clusterctl-cache.onOwn.12.service");
        assert!(told.unit.starts_with(&prefix("cache")));
        assert_eq!(told.arguments, ["/usr/bin/warm", "--at=10.0.0.11", "$HOME 5%"]);
        let of = |name: &str| told.environment[name].as_str();
        assert_eq!(
            (of("CLUSTERCTL_PARTITION"), of("CLUSTERCTL_EPOCH"), of("CLUSTERCTL_HOOK"), of("LEVEL")),
            ("12", "7", "onOwn", "10.0.0.11")
        );
        assert_eq!((told.user.as_deref(), told.timeout.as_millis()), (Some("cache"), 1500));
        let unknown = Values { node_address: None, ..values };
        assert!(matches!(command(about, &spec, None, &unknown), Err(TextError::NoValue(_))));
    }
}
