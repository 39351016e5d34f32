//! `config`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Config {
    List,
}
impl Config {
    pub(crate) fn run(&self, _app: &crate::app::App) -> Result<(), crate::failure::Failure> {
        Ok(())
    }
}
