//! docs/install.md as a script: its shell blocks in order, each on the machines that its first line names.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cluster_e2e::{Lab, LabError, Result};

/// The longest step is the build, where nothing was built before.
const STEP_LIMIT: Duration = Duration::from_secs(300);

/// Where a block runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The machine with the repository: here.
    Build,
    /// Machines by number.
    Machines(Vec<u8>),
}

/// One block of the page.
#[derive(Debug, Clone)]
pub struct Block {
    pub place: Place,
    pub script: String,
}

/// All shell blocks of a page.
pub fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((_, after)) = rest.split_once("\n```sh\n") {
        let (body, after) = after.split_once("\n```\n").ok_or_else(|| LabError::Invalid("a block of the page has no end".to_owned()))?;
        rest = after;
        let (first, script) = body.split_once('\n').unwrap_or((body, ""));
        let place = first.strip_prefix("# on ").and_then(place);
        let place = place.ok_or_else(|| LabError::Invalid(format!("a block begins with {first:?}, not with where it runs")))?;
        blocks.push(Block { place, script: script.to_owned() });
    }
    Ok(blocks)
}

fn place(text: &str) -> Option<Place> {
    if text == "the build machine" {
        return Some(Place::Build);
    }
    let names = text.replace(" and ", ", ");
    names.split(", ").map(|name| name.strip_prefix('m')?.parse().ok()).collect::<Option<Vec<u8>>>().map(Place::Machines)
}

/// Reads the page along, as its reader with one open shell on each machine.
pub struct Reader<'a> {
    lab: &'a Lab,
    /// Commands that stand for what the lab has not: ssh and scp.
    commands: PathBuf,
    /// Names that the reader's shells have, by machine.
    names: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn new(lab: &'a Lab, commands: &Path) -> std::io::Result<Self> {
        let program = |name: &str, text: &str| {
            let path = commands.join(name);
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        };
        let lab_program = env!("CARGO_BIN_EXE_lab");
        let exec = format!("'{lab_program}' --name {} exec", lab.name());
        program("ssh", &format!("#!/bin/bash\nexec {exec} \"n${{1#root@10.0.0.1}}\" -- bash -c \"${{*:2}}\"\n"))?;
        program(
            "scp",
            &format!(
                "#!/bin/bash\nset -e\nto=${{!#}} to=${{to#root@10.0.0.1}}\nfor file in \"${{@:1:$#-1}}\"; do\n  \
                 {exec} \"n${{to%:}}\" -- sh -c 'cat >\"/root/$1\"' sh \"${{file##*/}}\" <\"$file\"\ndone\n"
            ),
        )?;
        Ok(Self { lab, commands: commands.to_owned(), names: vec![String::new(); 10] })
    }

    /// Does what a block says, and returns what it printed.
    pub fn follow(&mut self, block: &Block) -> Result<String> {
        match &block.place {
            Place::Build => self.build(&block.script),
            Place::Machines(machines) => {
                let mut printed = String::new();
                for &machine in machines {
                    printed.push_str(&self.on(machine, &block.script)?);
                }
                Ok(printed)
            }
        }
    }

    fn build(&self, script: &str) -> Result<String> {
        let path = format!("{}:{}", self.commands.display(), std::env::var("PATH").unwrap_or_default());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        // The page builds what a user wants; a test has built another profile already.
        let mut command = Command::new("bash");
        command.args(["-ec", script]).current_dir(root).env("PATH", path).env("PROFILE", "dev");
        let ran = command.output().map_err(|source| LabError::Io { action: "run a block of the page".to_owned(), source })?;
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        if ran.status.success() { Ok(out.into_owned()) } else { Err(LabError::Invalid(format!("{script}\n{}\n{out}{err}", ran.status))) }
    }

    fn on(&mut self, machine: u8, script: &str) -> Result<String> {
        let names = self.names.get_mut(usize::from(machine)).ok_or_else(|| LabError::Invalid(format!("m{machine}")))?;
        if script
            .lines()
            .all(|line| line.split(' ').all(|word| word.split_once('=').is_some_and(|(name, _)| name.chars().all(char::is_alphabetic))))
        {
            names.push_str(&format!("{script}\n"));
            return Ok(String::new());
        }
        self.lab.exec_within(STEP_LIMIT, machine, ["bash", "-ec", &format!("cd\n{names}{script}")])?.ok()
    }
}
