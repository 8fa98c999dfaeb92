//! The stories of a node and of a cluster, as one test each.

#[test]
fn the_story_of_a_node_is_played_to_its_end() -> anyhow::Result<()> {
    hivemind_tests::play(|line| println!("{line}"))
}

#[test]
fn the_story_of_a_cluster_is_played_to_its_end() -> anyhow::Result<()> {
    hivemind_tests::play_cluster(|line| println!("{line}"))
}
