//! `widget`: the gateway in a menu bar: SwiftBar and xbar on macOS, Argos on GNOME, waybar.

mod install;
mod menu;
mod render;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::app::App;
use crate::failure::{Exit, Failure};

/// How long the daemon may take to answer; a menu that hangs says less than one that says so.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(crate) enum Widget {
    /// Write the script that a menu bar runs; for waybar print what belongs into its configuration
    Install(Install),
    /// Remove what `install` wrote, and nothing else
    Uninstall(Place),
    /// Print what a menu bar shows now; exits 0 when the gateway is down as well, since a menu shows that too
    Render {
        /// For which program; SwiftBar on macOS, otherwise Argos
        #[arg(long, value_enum)]
        format: Option<Format>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    place: Place,
    /// For which program; SwiftBar on macOS, otherwise Argos
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(5..=3_600))]
    refresh: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The folder from which the menu bar takes its scripts
    #[arg(long, value_name = "DIR")]
    plugins_dir: Option<PathBuf>,
}

/// What a menu bar reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// SwiftBar and xbar
    Swiftbar,
    /// Argos, an extension of GNOME
    Argos,
    /// A custom module of waybar
    Waybar,
    /// For a program of your own
    Json,
}

impl Format {
    /// The ordinary one of this system.
    fn here() -> Self {
        if cfg!(target_os = "macos") { Self::Swiftbar } else { Self::Argos }
    }
}

impl Widget {
    pub(crate) fn run(self, app: &App) -> Result<(), Failure> {
        match self {
            Self::Install(install) => install.run(app),
            Self::Uninstall(place) => place.uninstall(app),
            Self::Render { .. } if app.output.is_json => render(app, Format::Json),
            Self::Render { format } => render(app, format.unwrap_or_else(Format::here)),
        }
    }
}

fn render(app: &App, format: Format) -> Result<(), Failure> {
    let seen = match super::top::ask(app, PATIENCE) {
        Ok(overview) => menu::Seen::Running(Box::new(overview)),
        Err(failure) if failure.exit == Exit::NotRunning => {
            menu::Seen::Down(super::kill::TakenBack::on_disk(app))
        }
        Err(failure) => menu::Seen::Silent(failure.message),
    };
    let menu = menu::Menu::of(&seen);
    let text = match format {
        Format::Swiftbar => render::swiftbar(&menu, &render::Call::of(app)?),
        Format::Argos => render::argos(&menu, &render::Call::of(app)?),
        Format::Waybar => render::waybar(&menu),
        Format::Json => format!("{:#}", render::document(&menu, &seen)),
    };
    app.output.text(&text);
    Ok(())
}
