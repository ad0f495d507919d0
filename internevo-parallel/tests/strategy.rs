//! A strategy of another crate: registered, named in a configuration, built.

use std::sync::Arc;

use internevo_core::{
    config::{Config, validate},
    layout::ParallelLayout,
    plugin::{NoSettings, Plugin, PluginError, Registry},
};
use internevo_parallel::{
    ParallelError, ProcessGroups, Strategy, StrategyChoice,
    comm::run_ranks,
    register_strategy,
    strategy::{Role, StrategyContext, StrategyPlugin, alone},
};

/// Every rank of the tensor group does the same work.
struct Mirror;

impl Plugin for Mirror {
    const NAME: &'static str = "mirror";
    const ABOUT: &'static str = "Ranks of a tensor group repeat each other's work.";
    type Config = NoSettings;
}

impl StrategyPlugin for Mirror {
    fn build(_: NoSettings, _: &StrategyContext<'_>) -> Result<Arc<dyn Strategy>, PluginError> {
        Ok(alone())
    }
}

register_strategy!(Mirror);

#[test]
fn a_strategy_of_another_crate_can_be_named_like_the_built_in_ones() {
    let registry = Registry::collect().expect("no duplicates");
    assert_eq!(registry.names().collect::<Vec<_>>(), ["fsp", "isp", "mirror", "msp", "mtp"]);
    let mut config = Config::default();
    (config.launch.ranks, config.parallel.tensor.size) = (2, 2);
    config.parallel.tensor.mode = "mirror".into();
    assert_eq!(validate(&config), []);
    let choice = StrategyChoice::from_config(&registry, &config).expect("registered");
    let layout = ParallelLayout::new(&config.parallel, 2).expect("two ranks of one tensor group");
    let splits = run_ranks(2, |world| -> Result<_, ParallelError> {
        let groups = ProcessGroups::new(&layout, world)?;
        let cx = StrategyContext { groups: &groups, config: &config, vocab: 100, hidden: 32 };
        Ok(choice.build(&cx)?.split(Role::Column))
    });
    assert_eq!(splits.expect("both ranks"), [None, None]);
    config.parallel.tensor.mode = "miror".into();
    let error = StrategyChoice::from_config(&registry, &config).err().expect("unknown").to_string();
    assert!(error.contains("did you mean `mirror`"), "{error}");
}
