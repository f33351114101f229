//! `token create`: a token and the line that lets it in.

use clap::{Args, Subcommand, ValueEnum};
use cluster_schemas::access::{Role, TokenEntry};
use cluster_schemas::name::check_name;
use sha2::{Digest, Sha256};

use crate::error::{CliError, Exit};
use crate::io::Io;

/// `token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token: it is printed to stdout, the line for the controllers' tokensFile to stderr. Nothing is sent or stored
    Create {
        /// Who shall have it
        name: String,
        /// What they may do
        #[arg(long, value_enum)]
        role: RoleName,
    },
}

/// A role, as it is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleName {
    /// Look at the cluster
    Viewer,
    /// Also change and move Apps
    Deployer,
    /// Everything
    Admin,
}

/// Makes a token.
pub(crate) fn run(args: &TokenArgs, io: &mut Io<'_>) -> Result<Exit, CliError> {
    let TokenCommand::Create { name, role } = &args.command;
    check_name(name).map_err(|error| CliError::Usage { message: format!("{name:?} cannot be a name: {error}"), hint: None })?;
    let role = match role {
        RoleName::Viewer => Role::Viewer,
        RoleName::Deployer => Role::Deployer,
        RoleName::Admin => Role::Admin,
    };
    // 244 random bits of the kernel.
    let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let entry = entry(name, role, &token);
    io.out(&format!("{token}\n"))?;
    io.note(format_args!("- {{ name: {}, role: {}, sha256: {} }}", entry.name, entry.role.as_str(), entry.sha256));
    Ok(Exit::Done)
}

fn entry(name: &str, role: Role, token: &str) -> TokenEntry {
    let sha256 = Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    TokenEntry { name: name.to_owned(), role, sha256 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_hash_and_not_the_token() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let command = TokenCommand::Create { name: "ci".to_owned(), role: RoleName::Deployer };
        assert!(run(&TokenArgs { command }, &mut Io::new(&mut out, &mut err)).is_ok());
        let (token, line) = (String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"));
        let entries: Vec<TokenEntry> = serde_saphyr::from_str(&line).expect("an entry of the file");
        assert_eq!(entries, [entry("ci", Role::Deployer, token.trim())]);
        assert!(token.trim().len() == 64 && !line.contains(token.trim()));
    }
}
