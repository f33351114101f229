//! The command lines of all pages are ones that `clusterctl` takes. Whether they do what the pages say is tested where the pages are played:
//! the install page, the GitOps page and the examples.

use std::fs;
use std::path::{Path, PathBuf};

/// Fewer would mean that they were not found.
const COMMANDS_MIN: usize = 75;

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md"), root.join("cli/README.md")];
    for folder in ["docs", "manifests/examples"] {
        let files = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    pages.sort();
    pages
}

/// The commands of a line of a shell: words of each, up to what the shell itself deals with. Enough of a shell for our pages.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let (mut words, mut word, mut quote): (Vec<String>, Option<String>, Option<char>) = (Vec::new(), None, None);
    let mut skip_target = false;
    let mut end = |words: &mut Vec<String>| {
        let start = words.iter().position(|word| word == "clusterctl");
        all.extend(start.map(|start| words.split_off(start)));
        words.clear();
    };
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            (' ', None) => {
                if let Some(word) = word.take()
                    && !std::mem::take(&mut skip_target)
                {
                    words.push(word);
                }
            }
            ('|' | ';' | '&' | '(' | ')' | '`', None) => {
                words.extend(word.take());
                end(&mut words);
            }
            ('>' | '<', None) => {
                // A number before it is the shell's too.
                words.extend(word.take().filter(|word| word.parse::<u8>().is_err()));
                skip_target = true;
                if chars.peek().is_some_and(|next| matches!(next, '>' | '(')) {
                    chars.next();
                }
            }
            ('$', None) if chars.peek() == Some(&'(') => {}
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if !skip_target {
        words.extend(word);
    }
    end(&mut words);
    all
}

/// Lines of fenced blocks that are typed, in `console` those after a prompt; and commands within sentences. A backslash at the end goes on in the next line.
fn typed(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut block, mut open) = (None, None::<(usize, String)>);
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(kind.trim()) };
            continue;
        }
        let Some(kind) = block else {
            // Within a sentence.
            let spans = line.split('`').skip(1).step_by(2).filter(|span| span.starts_with("clusterctl "));
            found.extend(spans.map(|span| (number, span.to_owned())));
            continue;
        };
        let body = match (kind, open.is_some()) {
            (_, true) => Some(line.trim()),
            ("console", false) => line.trim_start().strip_prefix("$ ").or_else(|| line.trim_start().strip_prefix("# ")),
            ("sh" | "bash", false) => Some(line.trim()),
            _ => Some(line.trim()).filter(|line| line.starts_with("clusterctl ")),
        };
        let Some(body) = body else { continue };
        let (at, before) = open.take().unwrap_or((number, String::new()));
        match body.strip_suffix('\\') {
            Some(more) => open = Some((at, before + more)),
            None => found.push((at, before + body)),
        }
    }
    found
}

/// A variable of a shell, as the page fills it.
fn filled(word: &str) -> &str {
    match word {
        "${what[@]}" => "--filename=x",
        "$address" => "10.0.0.11",
        word if word.starts_with('$') => "x",
        word => word,
    }
}

#[test]
fn the_command_lines_of_all_pages_are_taken() {
    let (mut count, mut wrong) = (0, Vec::new());
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (number, line) in typed(&text) {
            for words in commands(&line) {
                let arguments: Vec<&str> = words.iter().skip(1).map(|word| filled(word)).collect();
                count += 1;
                // `dev` hands everything over to another program.
                if arguments.first() == Some(&"dev") {
                    continue;
                }
                // A sentence may name a command without all that it needs.
                let whole = |error: &String| !line.starts_with("clusterctl") || !error.contains("required");
                if let Err(error) = clusterctl::check(std::iter::once("clusterctl").chain(arguments))
                    && whole(&error)
                {
                    wrong.push(format!("{}:{number}: {line}\n{error}", page.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= COMMANDS_MIN, "only {count} commands");
    println!("{count} commands");
}

#[test]
fn a_shell_is_understood_as_far_as_pages_need_it() {
    let of = |line: &str| commands(line).into_iter().map(|words| words.join(" ")).collect::<Vec<_>>();
    assert_eq!(
        of("A=1 clusterctl get apps -o 'a b' >x 2>/dev/null | grep clusterctl # more"),
        ["clusterctl get apps -o a b", "clusterctl"]
    );
    assert_eq!(of("x=$(clusterctl get nodes) && clusterctl version"), ["clusterctl get nodes", "clusterctl version"]);
    assert!(of("echo nothing").is_empty());
    let page = "text `clusterctl e`\n```console\n$ clusterctl a \\\n    b\nprinted\n```\nclusterctl c\n```yaml\nclusterctl: d\n```\n";
    assert_eq!(typed(page), [(1, "clusterctl e".to_owned()), (3, "clusterctl a b".to_owned())]);
}
