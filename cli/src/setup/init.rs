//! `init`: the first machine of a new cluster.

use uuid::Uuid;

use super::args::InitArgs;
use super::machine::{self, Machine};
use super::text::{JoinFile, Nats};
use super::{SetupError, address};
use crate::error::{CliError, Exit};
use crate::io::Io;

/// Makes the cluster's identity and token, writes this machine's configuration and prints what comes next.
pub(crate) fn run(args: &InitArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let node = machine::node_name(&args.machine)?;
    let join = cluster(args, &node)?;
    let machine = Machine { by: "init", join: &join, node: &node, controller: Some(args.listen), args: &args.machine };
    if !machine.make(io)? {
        return Ok(Exit::Done);
    }
    let JoinFile { cluster, cluster_id, .. } = &join;
    let (from, plain) = (
        if args.machine.dir == std::path::Path::new(super::FOLDER) {
            String::new()
        } else {
            format!(" --dir {}", args.machine.dir.display())
        },
        machine.start(),
    );
    io.out(&format!(
        "\nThe cluster {cluster} ({cluster_id}) begins with the node {node}. Start it here:\n\n  {plain}\n\n\
         Then add machines. The join file has the token, so it goes from machine to machine and into no file or command line:\n\n  \
         clusterctl join-file{from} | ssh root@MACHINE clusterctl join --from - --node NAME\n\n\
         With --controller that machine runs a controller too; three controllers survive the loss of one.\n"
    ))?;
    for warning in warnings(args, &join) {
        io.note(format_args!("warning: {warning}"));
    }
    Ok(Exit::Done)
}

fn cluster(args: &InitArgs, node: &str) -> Result<JoinFile, SetupError> {
    let servers = address::nats_servers("--nats", &args.nats)?;
    let replicas = args.replicas.unwrap_or(if servers.len() >= 3 { 3 } else { 1 });
    if !matches!(replicas, 1 | 3 | 5) {
        return Err(SetupError::value("--replicas", format!("{replicas} cannot be: 1, 3 or 5, so that a majority is clear")));
    }
    if replicas > servers.len() {
        return Err(SetupError::value(
            "--replicas",
            format!("{replicas} copies need {replicas} NATS servers, --nats names {}", servers.len()),
        ));
    }
    let own = machine::controller_url(args.listen, &args.machine, node);
    let controllers =
        address::controllers("--controllers", if args.controllers.is_empty() { std::slice::from_ref(&own) } else { &args.controllers })?;
    Ok(JoinFile {
        cluster: address::name("--cluster", &args.cluster)?,
        cluster_id: Uuid::new_v4(),
        // The first node decides alone until there are more (protocols B6).
        voters: vec![node.to_owned()],
        nats: Nats { servers, replicas },
        controllers,
        // Twice 122 random bits, in characters that every file and header takes.
        token: format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()),
    })
}

fn warnings(args: &InitArgs, join: &JoinFile) -> Vec<String> {
    let mut warnings = Vec::new();
    let local = |url: &&String| matches!(address::host(url), "127.0.0.1" | "localhost" | "::1");
    if let Some(url) = join.nats.servers.iter().find(local) {
        warnings.push(format!("{} is this machine only, others cannot join by it", without_user(url)));
    }
    if join.nats.servers.len() == 2 {
        warnings.push("two NATS servers store nothing while one of them is away; use three".to_owned());
    }
    if args.listen.ip().is_loopback() {
        warnings.push("the controller listens on loopback: other machines cannot ask it".to_owned());
    }
    warnings
}

/// A URL as it may be shown.
fn without_user(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn args(more: &[&str]) -> InitArgs {
        let all = ["clusterctl", "init", "--cluster", "prod"].iter().chain(more);
        match Cli::parse_from(all).command {
            Command::Init(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn made(more: &[&str]) -> Result<JoinFile, String> {
        cluster(&args(more), "m1").map_err(|e| e.to_string())
    }

    #[test]
    fn replicas_follow_from_the_servers_and_must_fit() {
        assert_eq!(made(&["--nats", "a,b,c"]).unwrap().nats.replicas, 3);
        assert_eq!(made(&["--nats", "a,b"]).unwrap().nats.replicas, 1);
        assert!(made(&["--nats", "a", "--replicas", "3"]).unwrap_err().contains("--nats names 1"));
        assert!(made(&["--nats", "a,b", "--replicas", "2"]).unwrap_err().contains("1, 3 or 5"));
    }

    #[test]
    fn the_controller_is_reached_where_it_listens_else_by_address_else_by_name() {
        let url = |more: &[&str]| made(&[&["--nats", "a"], more].concat()).unwrap().controllers.swap_remove(0);
        assert_eq!(url(&[]), "http://m1:7070");
        assert_eq!(url(&["--address", "10.0.0.11"]), "http://10.0.0.11:7070");
        assert_eq!(url(&["--address", "10.0.0.11", "--listen", "10.9.9.9:8000"]), "http://10.9.9.9:8000");
        assert_eq!(url(&["--address", "fd00::1"]), "http://[fd00::1]:7070");
        assert_eq!(url(&["--controllers", "x,y"]), "http://x:7070");
    }

    #[test]
    fn two_clusters_have_nothing_in_common() {
        let (a, b) = (made(&["--nats", "a"]).unwrap(), made(&["--nats", "a"]).unwrap());
        assert_ne!(a.cluster_id, b.cluster_id);
        assert_ne!(a.token, b.token);
        assert_eq!((a.token.len(), a.voters), (64, vec!["m1".to_owned()]));
    }

    #[test]
    fn what_cannot_work_for_others_is_warned_about() {
        let warned = |more: &[&str]| warnings(&args(more), &made(more).unwrap());
        assert!(warned(&["--nats", "a,b,c"]).is_empty());
        assert_eq!(
            warned(&["--nats", "nats://u:secret@127.0.0.1"]),
            ["nats://127.0.0.1:4222 is this machine only, others cannot join by it"]
        );
        assert!(warned(&["--nats", "a,b"])[0].contains("use three"));
        assert!(warned(&["--nats", "a", "--listen", "127.0.0.1:7070"])[0].contains("loopback"));
    }
}
