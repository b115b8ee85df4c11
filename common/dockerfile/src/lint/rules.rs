//! BuildKit's rules (`frontend/dockerfile/linter`): names and descriptions are theirs, so that `# check=skip=` and scripts that read
//! them go on working.

use super::Finding;
use crate::Lines;

macro_rules! rules {
    ($($rule:ident $name:literal $description:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule { $($rule),* }

        impl Rule {
            pub const ALL: &[Rule] = &[$(Rule::$rule),*];

            pub fn name(self) -> &'static str {
                match self { $(Rule::$rule => $name),* }
            }

            pub fn description(self) -> &'static str {
                match self { $(Rule::$rule => $description),* }
            }
        }
    };
}

rules! {
    StageNameCasing "StageNameCasing" "Stage names should be lowercase",
    FromAsCasing "FromAsCasing" "The 'as' keyword should match the case of the 'from' keyword",
    NoEmptyContinuation "NoEmptyContinuation" "Empty continuation lines will become errors in a future release",
    ConsistentInstructionCasing "ConsistentInstructionCasing" "All commands within the Dockerfile should use the same casing (either upper or lower)",
    DuplicateStageName "DuplicateStageName" "Stage names should be unique",
    ReservedStageName "ReservedStageName" "Reserved words should not be used as stage names",
    JsonArgsRecommended "JSONArgsRecommended" "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    MaintainerDeprecated "MaintainerDeprecated" "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    UndefinedArgInFrom "UndefinedArgInFrom" "FROM command must use declared ARGs",
    WorkdirRelativePath "WorkdirRelativePath" "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    UndefinedVar "UndefinedVar" "Variables should be defined before their use",
    MultipleInstructionsDisallowed "MultipleInstructionsDisallowed" "Multiple instructions of the same type should not be used in the same stage",
    LegacyKeyValueFormat "LegacyKeyValueFormat" "Legacy key/value format with whitespace separator should not be used",
    InvalidBaseImagePlatform "InvalidBaseImagePlatform" "Base image platform does not match expected target platform",
    RedundantTargetPlatform "RedundantTargetPlatform" "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    SecretsUsedInArgOrEnv "SecretsUsedInArgOrEnv" "Sensitive data should not be used in the ARG or ENV commands",
    InvalidDefaultArgInFrom "InvalidDefaultArgInFrom" "Default value for global ARG results in an empty or invalid base image name",
    FromPlatformFlagConstDisallowed "FromPlatformFlagConstDisallowed" "FROM --platform flag should not use a constant value",
    CopyIgnoredFile "CopyIgnoredFile" "Attempting to Copy file that is excluded by .dockerignore",
    InvalidDefinitionDescription "InvalidDefinitionDescription" "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    ExposeProtoCasing "ExposeProtoCasing" "Protocol in EXPOSE instruction should be lowercase",
    ExposeInvalidFormat "ExposeInvalidFormat" "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
}

impl Rule {
    /// Looked for only when asked for.
    pub fn is_experimental(self) -> bool {
        self == Rule::InvalidDefinitionDescription
    }

    pub fn finding(self, lines: Lines, message: impl Into<String>) -> Finding {
        Finding { rule: self.name(), description: self.description(), message: message.into(), lines }
    }
}
