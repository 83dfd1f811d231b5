//! `gauze completion`: the words of the command line, for a shell.

use std::io::Write;

use clap_complete::Shell;

use crate::exit::Exit;

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The shell that is to complete them
    shell: Shell,
}

const AFTER_HELP: &str = "For this shell:     source <(gauze completion bash)
For each new one:   gauze completion bash > ~/.local/share/bash-completion/completions/gauze
                    gauze completion zsh > \"${fpath[1]}/_gauze\"
                    gauze completion fish > ~/.config/fish/completions/gauze.fish";

pub(crate) fn run(arguments: &Arguments, mut command: clap::Command) -> anyhow::Result<Exit> {
    // Not to stdout at once: the generator panics where that is closed.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "gauze", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Exit::Fine)
}
