//! `join` and `join-file`: every machine after the first.

use super::args::{JoinArgs, JoinFileArgs};
use super::files;
use super::machine::{self, Machine};
use super::text::{self, AgentFile, CliFile, JoinFile, Nats};
use super::{SetupError, address};
use crate::error::{CliError, Exit};
use crate::io::Io;

/// Shortest token that controllers take, in bytes.
const TOKEN_MIN: usize = 16;

/// Writes this machine's configuration from a join file and prints what comes next.
pub(crate) fn join(args: &JoinArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let what = text::called(&args.from);
    let mut join = checked(&what, text::parse(&what, &files::read(&args.from)?)?)?;
    let node = machine::node_name(&args.machine)?;
    let own = args.controller.then(|| machine::controller_url(args.listen, &args.machine, &node));
    let new_controller = own.as_ref().filter(|own| !join.controllers.contains(own)).cloned();
    join.controllers.extend(new_controller.clone());
    let machine = Machine { by: "join", join: &join, node: &node, controller: args.controller.then_some(args.listen), args: &args.machine };
    if !machine.make(io)? {
        return Ok(Exit::Done);
    }
    io.out(&format!(
        "\nThis machine is the node {node} of the cluster {}. Start it here:\n\n  {}\n\nThen look for it:\n\n  clusterctl get nodes\n",
        join.cluster,
        machine.start()
    ))?;
    if let Some(url) = new_controller {
        io.note(format_args!("note: the other machines do not know {url} yet; add it to servers in /etc/clusterctl/cli.yaml there"));
    }
    Ok(Exit::Done)
}

/// Prints the join file of this machine's cluster.
pub(crate) fn join_file(args: &JoinFileArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let read = |name: &str| {
        let path = args.dir.join(name);
        files::read(&path).map(|text| (path.display().to_string(), text))
    };
    let (path, agent) = read("agent.yaml")?;
    let agent: AgentFile = text::parse(&path, &agent)?;
    let cluster_id = agent
        .cluster_id
        .ok_or_else(|| SetupError::Value { what: path, reason: "it has no clusterId; clusterctl init makes one".to_owned() })?;
    let (path, cli) = read("cli.yaml")?;
    let CliFile { servers } = text::parse(&path, &cli)?;
    let (path, token) = read("token")?;
    let join = JoinFile {
        cluster: agent.cluster,
        cluster_id,
        voters: agent.voters,
        nats: agent.nats,
        controllers: servers,
        token: token.trim().to_owned(),
    };
    io.out(&checked(&path, join)?.text())?;
    Ok(Exit::Done)
}

/// Holds a join file to the rules of what it becomes.
fn checked(what: &str, join: JoinFile) -> Result<JoinFile, SetupError> {
    let field = |name: &str| format!("{what}: {name}");
    address::name(&field("cluster"), &join.cluster)?;
    if join.voters.is_empty() {
        return Err(SetupError::value(&field("voters"), "name the first node at least"));
    }
    for voter in &join.voters {
        address::name(&field("voters"), voter)?;
    }
    if join.token.len() < TOKEN_MIN || !join.token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(SetupError::value(&field("token"), format!("is no token: {TOKEN_MIN} printable characters or more")));
    }
    let servers = address::nats_servers(&field("nats.servers"), &join.nats.servers)?;
    if join.nats.replicas == 0 || join.nats.replicas > servers.len() {
        return Err(SetupError::value(
            &field("nats.replicas"),
            format!("{} copies do not fit {} servers", join.nats.replicas, servers.len()),
        ));
    }
    let controllers = address::controllers(&field("controllers"), &join.controllers)?;
    Ok(JoinFile { nats: Nats { servers, ..join.nats }, controllers, ..join })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "cluster: prod\nclusterId: 6f1c2a34-8b5d-4e6f-9a70-1b2c3d4e5f60\nvoters: [m1]\nnats: {servers: [\"nats://a:4222\"], replicas: 1}\n\
                        controllers: [\"http://a:7070\"]\ntoken: \"0123456789abcdef\"\n";

    fn check(from: &str, to: &str) -> Result<JoinFile, String> {
        checked("join.yaml", text::parse("join.yaml", &GOOD.replace(from, to)).map_err(|e: SetupError| e.to_string())?)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn what_a_join_file_says_is_held_to_the_rules() {
        assert!(check("x", "x").is_ok());
        for (from, to, part) in [
            ("cluster: prod", "cluster: Prod", "cluster: \"Prod\" cannot be a name"),
            ("voters: [m1]", "voters: []", "voters: name the first node"),
            ("voters: [m1]", "voters: [m_1]", "voters: \"m_1\""),
            ("0123456789abcdef", "short", "token: is no token"),
            ("replicas: 1", "replicas: 3", "3 copies do not fit 1 servers"),
            ("nats://a:4222", "ftp://a", "neither nats nor tls"),
            ("http://a:7070", "ftp://a:7070", "neither http nor https"),
            ("6f1c2a34-", "", "join.yaml:2:"),
            ("token:", "tokn:", "join.yaml:6:1"),
        ] {
            let error = check(from, to).unwrap_err();
            assert!(error.contains(part), "{to}: {error}");
        }
        assert!(!check("0123456789abcdef", "secret").unwrap_err().contains("secret"));
    }
}
