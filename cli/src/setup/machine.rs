//! One machine's part: its files, and what the user reads about them.

use std::net::SocketAddr;

use super::SetupError;
use super::address;
use super::args::MachineArgs;
use super::files::{self, NewFile};
use super::text::{self, JoinFile};
use crate::error::CliError;
use crate::io::Io;

/// What the kernel calls this machine.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// One machine that shall belong to a cluster.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    /// The command that makes it: `init` or `join`.
    pub(crate) by: &'static str,
    /// What it shares with the others.
    pub(crate) join: &'a JoinFile,
    /// Its name.
    pub(crate) node: &'a str,
    /// Where its controller listens, if it has one.
    pub(crate) controller: Option<SocketAddr>,
    /// The rest.
    pub(crate) args: &'a MachineArgs,
}

/// The name that the user gave, else that of the host.
pub(crate) fn node_name(args: &MachineArgs) -> Result<String, SetupError> {
    if let Some(name) = &args.node {
        return address::name("--node", name);
    }
    let host = std::fs::read_to_string(HOST_NAME).map_err(|source| SetupError::Read { what: HOST_NAME.to_owned(), source })?;
    let first = host.trim().split('.').next().unwrap_or_default().to_ascii_lowercase();
    address::name("the host name", &first).map_err(|error| SetupError::value("--node", format!("is needed here, for {error}")))
}

/// How others reach the controller of a machine: where it listens, else the machine's address, else its name.
pub(crate) fn controller_url(listen: SocketAddr, args: &MachineArgs, node: &str) -> String {
    let address = (!listen.ip().is_unspecified()).then(|| listen.ip()).or(args.address);
    match address {
        Some(ip) => format!("http://{}", SocketAddr::new(ip, listen.port())),
        None => format!("http://{node}:{}", listen.port()),
    }
}

impl Machine<'_> {
    /// The files in the order they are written.
    pub(crate) fn files(&self) -> Result<Vec<NewFile>, SetupError> {
        let labels = address::labels(&self.args.labels)?;
        let address = self.args.address.map(|address| address.to_string());
        // URLs of NATS may have passwords: only root, and whom root shows them to, reads them.
        let mut files = vec![
            NewFile { name: "token", mode: 0o600, text: format!("{}\n", self.join.token) },
            NewFile { name: "agent.yaml", mode: 0o600, text: text::agent(self.by, self.join, self.node, address.as_deref(), &labels) },
            NewFile { name: "cli.yaml", mode: 0o644, text: text::cli(self.by, &self.join.controllers) },
        ];
        if let Some(listen) = self.controller {
            files.push(NewFile {
                name: "controller.yaml",
                mode: 0o600,
                text: text::controller(self.by, self.join, self.node, address.as_deref(), listen),
            });
        }
        Ok(files)
    }

    /// Writes the files, or prints them for a dry run. Returns whether they were written.
    pub(crate) fn make(&self, io: &mut Io<'_>) -> Result<bool, CliError> {
        let files = self.files()?;
        let folder = &self.args.dir;
        if self.args.dry_run {
            for file in &files {
                // The token of a dry run is no secret yet, or came in with the join file: either way it is not for a terminal.
                let text = if file.name == "token" { "(the token of the API)\n" } else { &file.text };
                io.out(&format!("# {} ({:04o})\n{text}\n", folder.join(file.name).display(), file.mode))?;
            }
            io.remark("dry run: nothing was written");
            let there = files::existing(folder, &files);
            if !there.is_empty() {
                io.note(SetupError::Exists(there));
            }
            return Ok(false);
        }
        files::write_all(folder, &files)?;
        for file in &files {
            io.line(format_args!("wrote {} ({:04o})", folder.join(file.name).display(), file.mode))?;
        }
        Ok(true)
    }

    /// The command that starts what this machine runs.
    pub(crate) const fn start(&self) -> &'static str {
        if self.controller.is_some() {
            "systemctl enable --now cluster-guard cluster-agent cluster-controller"
        } else {
            "systemctl enable --now cluster-guard cluster-agent"
        }
    }
}
