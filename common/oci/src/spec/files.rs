//! `/etc/passwd` and `/etc/group` with a line of the user's after the image's.

use super::Generator;
use super::mounts::{Mounts, new_mount};
use crate::users::{self, UserFiles};
use crate::wishes::MountPlan;
use fault::{Fault, Result};

/// Where they are in the container and in the bundle.
pub(super) const USER_FILES: [(&str, &str); 2] = [("/etc/passwd", "passwd"), ("/etc/group", "group")];

impl Generator<'_> {
    /// Name in the bundle and text of those that are wished for.
    pub(super) fn user_files(
        &self,
        user: &users::Identity,
        files: &UserFiles,
    ) -> Result<Vec<(&'static str, String)>> {
        let mut list = Vec::new();
        if let Some(entry) = &self.config.passwd_entry {
            let name = user.name.clone().unwrap_or_else(|| user.uid.to_string());
            let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
            let values = [
                ("$USERNAME", name.as_str()),
                ("$UID", &uid),
                ("$GID", &gid),
                ("$NAME", &name),
                ("$HOME", &user.home),
            ];
            list.push(("passwd", with_line("passwd-entry", files.passwd.as_deref(), entry, &values, 7)?));
        }
        if let Some(entry) = &self.config.group_entry {
            let name = name_of(files.group.as_deref(), user.gid).unwrap_or_else(|| user.gid.to_string());
            let gid = user.gid.to_string();
            list.push((
                "group",
                with_line(
                    "group-entry",
                    files.group.as_deref(),
                    entry,
                    &[("$GROUPNAME", &name), ("$GID", &gid)],
                    4,
                )?,
            ));
        }
        Ok(list)
    }

    pub(super) fn add_user_files(
        &self,
        mounts: &mut Mounts,
        plans: &[MountPlan],
        files: &[(&'static str, String)],
    ) {
        let Some(bundle) = &self.container.bundle else { return };
        for (target, file) in USER_FILES.iter().filter(|(_, file)| files.iter().any(|(name, _)| name == file))
        {
            if plans.iter().any(|plan| plan.target == *target) {
                continue;
            }
            let mut options = vec!["rbind", "rprivate"];
            options.extend(self.mapped());
            if self.config.read_only {
                options.push("ro");
            }
            mounts.list.push(new_mount(target, "bind", bundle.join(file), &options));
        }
    }
}

/// The name with this number, the third field.
fn name_of(file: Option<&str>, id: u32) -> Option<String> {
    file?.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

fn with_line(
    what: &str,
    file: Option<&str>,
    entry: &str,
    values: &[(&str, &str)],
    fields: usize,
) -> Result<String> {
    let line = values
        .iter()
        .fold(entry.trim_end_matches('\n').to_owned(), |line, (name, value)| line.replace(name, value));
    if line.contains(['\n', '\0']) || line.split(':').count() != fields || line.starts_with(':') {
        return Err(Fault::input(format!("{what} \"{entry}\" is not a line of {fields} fields"))
            .hint("as in passwd(5) and group(5)"));
    }
    let mut text = file.unwrap_or_default().to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text + &line + "\n")
}
