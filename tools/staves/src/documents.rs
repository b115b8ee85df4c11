//! Manual pages and completions, made from the same data that parses the command lines.

use clap::Command;
use clap_complete::Shell;
use fault::{Explain, Result};
use std::path::Path;

/// `NAME.1` for every tool.
pub fn manual_pages(dir: &Path, tools: Vec<Command>) -> Result<()> {
    make_dir(dir)?;
    for tool in tools {
        let name = format!("{}.1", tool.get_name());
        let mut page = Vec::new();
        clap_mangen::Man::new(tool).render(&mut page).explain(|| format!("write {name}"))?;
        write(&dir.join(name), &page)?;
    }
    Ok(())
}

/// `bash/NAME`, `zsh/_NAME` and `fish/NAME.fish` for every tool.
pub fn completions(dir: &Path, tools: Vec<Command>) -> Result<()> {
    let shells = [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")];
    for (_, below) in shells {
        make_dir(&dir.join(below))?;
    }
    for mut tool in tools {
        let name = tool.get_name().to_owned();
        for (shell, below) in shells {
            let file = match shell {
                Shell::Zsh => format!("_{name}"),
                Shell::Fish => format!("{name}.fish"),
                _ => name.clone(),
            };
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut tool, name.as_str(), &mut text);
            write(&dir.join(below).join(file), &text)?;
        }
    }
    Ok(())
}

pub fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).explain(|| format!("make directory {}", dir.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::write(path, content).explain(|| format!("write {}", path.display()))
}
