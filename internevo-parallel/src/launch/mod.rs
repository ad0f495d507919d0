//! How a process learns which rank of which world it is: from the variables that its launcher sets. Here too: handing a few
//! bytes from rank 0 to the others before there is a communicator ([`rendezvous`]). Not here: the communicators (`comm/`).

pub mod rendezvous;

use std::{fmt, str::FromStr};

/// Who started the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Launcher {
    /// Nobody: one process on its own.
    Alone,
    /// Open MPI's `mpirun`.
    Mpirun,
    /// `torchrun`, or anything that sets the same variables.
    Torchrun,
    /// Slurm's `srun`.
    Srun,
    /// A Kubernetes Job with `completionMode: Indexed`, a process per pod.
    Kubernetes,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alone => "nobody",
            Self::Mpirun => "mpirun",
            Self::Torchrun => "torchrun",
            Self::Srun => "srun",
            Self::Kubernetes => "kubernetes",
        })
    }
}

/// This process's place in a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Its rank.
    pub rank: usize,
    /// Ranks of the job.
    pub world: usize,
    /// Its number on its host, which chooses the device.
    pub local_rank: usize,
    /// Who started it.
    pub launcher: Launcher,
    /// `host:port` at which rank 0 can be met before there is a communicator, from `MASTER_ADDR` and `MASTER_PORT`.
    pub rendezvous: Option<String>,
}

/// Variables that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// A variable is no number of the expected size.
    #[error("{variable}=`{value}` is not a number")]
    NotANumber {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// Half of what a launcher sets.
    #[error("{present} is set but {missing} is not: set both or neither")]
    Missing {
        /// The variable that was found.
        present: &'static str,
        /// The one it needs.
        missing: &'static str,
    },
    /// A rank outside its world.
    #[error("{rank_variable}={rank} is not below {world_variable}={world}")]
    OutOfRange {
        /// The variable of the rank.
        rank_variable: &'static str,
        /// Its value.
        rank: usize,
        /// The variable of the world's size.
        world_variable: &'static str,
        /// Its value.
        world: usize,
    },
    /// Two launchers say different things about this very process.
    #[error(
        "{first}={first_value} contradicts {second}={second_value}: unset the one that is left over from elsewhere"
    )]
    Contradiction {
        /// A variable.
        first: &'static str,
        /// Its value.
        first_value: usize,
        /// Another one.
        second: &'static str,
        /// Its value.
        second_value: usize,
    },
}

/// The variables by which a launcher numbers its processes.
struct Names {
    launcher: Launcher,
    rank: &'static str,
    world: &'static str,
    /// `None` where a host has one process.
    local_rank: Option<&'static str>,
}

/// From the innermost launcher outwards: `srun` starts `mpirun`'s daemons or one `torchrun` per host, a pod may start either,
/// and what the outer one says is then about another process.
const LAUNCHERS: [Names; 4] = [
    Names {
        launcher: Launcher::Mpirun,
        rank: "OMPI_COMM_WORLD_RANK",
        world: "OMPI_COMM_WORLD_SIZE",
        local_rank: Some("OMPI_COMM_WORLD_LOCAL_RANK"),
    },
    Names { launcher: Launcher::Torchrun, rank: "RANK", world: "WORLD_SIZE", local_rank: Some("LOCAL_RANK") },
    Names { launcher: Launcher::Srun, rank: "SLURM_PROCID", world: "SLURM_NTASKS", local_rank: Some("SLURM_LOCALID") },
    Names { launcher: Launcher::Kubernetes, rank: "JOB_COMPLETION_INDEX", world: "WORLD_SIZE", local_rank: None },
];

impl Launch {
    /// Reads the variables, of which `vars` gives the values. `std::env::var(name).ok()` is what a program passes.
    ///
    /// | launcher | rank, world, local rank |
    /// |---|---|
    /// | `mpirun` | `OMPI_COMM_WORLD_RANK`, `OMPI_COMM_WORLD_SIZE`, `OMPI_COMM_WORLD_LOCAL_RANK` |
    /// | `torchrun` | `RANK`, `WORLD_SIZE`, `LOCAL_RANK` |
    /// | `srun` | `SLURM_PROCID`, `SLURM_NTASKS`, `SLURM_LOCALID` |
    /// | Kubernetes | `JOB_COMPLETION_INDEX`, and `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT` from the manifest |
    ///
    /// The first launcher of this list whose rank is set counts; without any, the process is alone. `MASTER_ADDR` and
    /// `MASTER_PORT` are read whoever started it.
    ///
    /// # Errors
    /// A [`LaunchError`] that names the variables.
    pub fn detect(vars: impl Fn(&str) -> Option<String>) -> Result<Self, LaunchError> {
        // An empty variable is how shells and manifests leave one out.
        let vars = |name: &str| vars(name).filter(|value| !value.trim().is_empty());
        let mut found = LAUNCHERS.iter().filter(|names| vars(names.rank).is_some());
        let rendezvous = master(&vars)?;
        let Some(names) = found.next() else {
            if vars("WORLD_SIZE").is_some() {
                return Err(LaunchError::Missing { present: "WORLD_SIZE", missing: "RANK" });
            }
            return Ok(Self { rank: 0, world: 1, local_rank: 0, launcher: Launcher::Alone, rendezvous });
        };
        let launch = names.read(&vars, rendezvous)?;
        if names.launcher == Launcher::Mpirun
            && let Some(other) = found.find(|names| names.launcher == Launcher::Torchrun)
        {
            // Neither starts the other: both speak of this process.
            names.agree_with(other, &launch, &vars)?;
        }
        if names.launcher == Launcher::Kubernetes && launch.world > 1 && launch.rendezvous.is_none() {
            return Err(LaunchError::Missing { present: names.rank, missing: "MASTER_ADDR" });
        }
        Ok(launch)
    }
}

impl Names {
    fn read(&self, vars: &impl Fn(&str) -> Option<String>, rendezvous: Option<String>) -> Result<Launch, LaunchError> {
        let needed = |variable: &'static str| {
            number(vars, variable)?.ok_or(LaunchError::Missing { present: self.rank, missing: variable })
        };
        let (rank, world) = (needed(self.rank)?, needed(self.world)?);
        let local_rank = self.local_rank.map(needed).transpose()?.unwrap_or(0);
        for (rank_variable, rank) in [(self.rank, rank), (self.local_rank.unwrap_or(self.rank), local_rank)] {
            if rank >= world {
                return Err(LaunchError::OutOfRange { rank_variable, rank, world_variable: self.world, world });
            }
        }
        Ok(Launch { rank, world, local_rank, launcher: self.launcher, rendezvous })
    }

    fn agree_with(
        &self,
        other: &Self,
        launch: &Launch,
        vars: &impl Fn(&str) -> Option<String>,
    ) -> Result<(), LaunchError> {
        for (first, first_value, second) in
            [(self.rank, launch.rank, other.rank), (self.world, launch.world, other.world)]
        {
            if let Some(second_value) = number::<usize>(vars, second)?
                && first_value != second_value
            {
                return Err(LaunchError::Contradiction { first, first_value, second, second_value });
            }
        }
        Ok(())
    }
}

fn number<T: FromStr>(
    vars: &impl Fn(&str) -> Option<String>,
    variable: &'static str,
) -> Result<Option<T>, LaunchError> {
    let Some(value) = vars(variable) else { return Ok(None) };
    value.trim().parse().map(Some).map_err(|_| LaunchError::NotANumber { variable, value })
}

/// Where rank 0 can be met.
fn master(vars: &impl Fn(&str) -> Option<String>) -> Result<Option<String>, LaunchError> {
    let (address, port) = ("MASTER_ADDR", "MASTER_PORT");
    match (vars(address), number::<u16>(vars, port)?) {
        (None, None) => Ok(None),
        (Some(_), None) => Err(LaunchError::Missing { present: address, missing: port }),
        (None, Some(_)) => Err(LaunchError::Missing { present: port, missing: address }),
        (Some(host), Some(port)) => {
            let host = host.trim();
            let bare_v6 = host.parse::<std::net::Ipv6Addr>().is_ok();
            Ok(Some(if bare_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)]) -> Result<Launch, LaunchError> {
        Launch::detect(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    const MPIRUN: [(&str, &str); 3] =
        [("OMPI_COMM_WORLD_RANK", "5"), ("OMPI_COMM_WORLD_SIZE", "8"), ("OMPI_COMM_WORLD_LOCAL_RANK", "1")];
    const TORCHRUN: [(&str, &str); 5] =
        [("RANK", "3"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "node-0"), ("MASTER_PORT", "29500")];

    #[test]
    fn every_launcher_s_variables_are_understood() {
        let place = |launch: &Launch| (launch.launcher, launch.rank, launch.world, launch.local_rank);
        let mpirun = detect(&MPIRUN).expect("sound");
        assert_eq!((place(&mpirun), mpirun.rendezvous), ((Launcher::Mpirun, 5, 8, 1), None));
        let torchrun = detect(&TORCHRUN).expect("sound");
        assert_eq!(place(&torchrun), (Launcher::Torchrun, 3, 4, 1));
        assert_eq!(torchrun.rendezvous.as_deref(), Some("node-0:29500"));
        let srun = detect(&[("SLURM_PROCID", "2"), ("SLURM_NTASKS", "3"), ("SLURM_LOCALID", "0")]).expect("sound");
        assert_eq!(place(&srun), (Launcher::Srun, 2, 3, 0));
        let pod =
            [("JOB_COMPLETION_INDEX", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "fd00::1"), ("MASTER_PORT", "29500")];
        let pod = detect(&pod).expect("sound");
        assert_eq!(
            (place(&pod), pod.rendezvous.as_deref()),
            ((Launcher::Kubernetes, 1, 2, 0), Some("[fd00::1]:29500"))
        );
        let alone = detect(&[("RANK", "")]).expect("sound");
        assert_eq!(place(&alone), (Launcher::Alone, 0, 1, 0));
    }

    #[test]
    fn an_inner_launcher_counts_and_an_outer_one_may_say_something_else() {
        let slurm = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "2"), ("SLURM_LOCALID", "0")];
        for inner in [&MPIRUN[..], &TORCHRUN[..]] {
            let launch = detect(&[&slurm, inner].concat()).expect("sound");
            assert_ne!(launch.launcher, Launcher::Srun);
        }
    }

    #[test]
    fn contradictions_name_their_variables() {
        let with = |base: &[(&'static str, &'static str)], changes: &[(&'static str, &'static str)]| {
            detect(&[changes, base].concat()).expect_err("contradictory").to_string()
        };
        let text = with(&MPIRUN, &TORCHRUN);
        assert!(text.contains("OMPI_COMM_WORLD_RANK=5") && text.contains("RANK=3"), "{text}");
        let text = with(&TORCHRUN, &[("RANK", "4")]);
        assert!(text.contains("RANK=4") && text.contains("WORLD_SIZE=4"), "{text}");
        let text = with(&TORCHRUN, &[("WORLD_SIZE", "many")]);
        assert!(text.contains("WORLD_SIZE=`many`"), "{text}");
        let text = with(&TORCHRUN, &[("MASTER_PORT", "")]);
        assert!(text.contains("MASTER_ADDR is set but MASTER_PORT is not"), "{text}");
        let text = with(&[("WORLD_SIZE", "2")], &[]);
        assert!(text.contains("WORLD_SIZE is set but RANK is not"), "{text}");
        let text = with(&[("JOB_COMPLETION_INDEX", "0"), ("WORLD_SIZE", "2")], &[]);
        assert!(text.contains("MASTER_ADDR"), "{text}");
        let text = with(&MPIRUN[..1], &[]);
        assert!(text.contains("OMPI_COMM_WORLD_SIZE"), "{text}");
    }
}
