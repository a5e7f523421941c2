use super::*;

fn read(words: &[&str]) -> Result<Arguments, clap::Error> {
    Arguments::read(["nodetap-aggregator"].iter().chain(words).map(OsString::from))
}

#[test]
fn flags_of_kubernetes_event_exporter_are_taken_as_it_spells_them() {
    for words in [
        &["-conf=/data/config.yaml", "-metrics-address=:2113", "-kubeconfig", "k"][..],
        &["-conf", "/data/config.yaml", "-metrics-address", ":2113", "-kubeconfig=k"],
        &["--conf=/data/config.yaml", "--metrics-address=0.0.0.0:2113", "--kubeconfig=k"],
    ] {
        let arguments = read(words).unwrap();
        assert_eq!(arguments.config, PathBuf::from("/data/config.yaml"), "{words:?}");
        assert_eq!(arguments.metrics_address, Some(SocketAddr::from(([0, 0, 0, 0], 2113))), "{words:?}");
        assert_eq!(arguments.kubeconfig, Some(PathBuf::from("k")), "{words:?}");
    }
}

#[test]
fn a_flag_that_is_not_known_is_named() {
    let said = read(&["--metrics-tls-config=web.yaml"]).unwrap_err().to_string();
    assert!(said.contains("--metrics-tls-config"), "{said}");
}

#[test]
fn the_flags_are_well_formed() {
    use clap::CommandFactory;
    Arguments::command().debug_assert();
}
