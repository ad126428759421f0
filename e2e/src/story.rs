//! A story is told over both xDS protocols, each time to a scene of its own.

use anyhow::Result;

use crate::{bootstrap::Protocol, scene::Scene};

/// Makes two tests of each named story, an `async fn(&Scene) -> anyhow::Result<()>` in scope: `delta::…` and `sotw::…`.
#[macro_export]
macro_rules! over_both_protocols {
    ($($story:ident),* $(,)?) => {
        $crate::over_both_protocols!(Delta in delta: $($story),*);
        $crate::over_both_protocols!(StateOfTheWorld in sotw: $($story),*);
    };
    ($protocol:ident in $module:ident: $($story:ident),*) => {
        mod $module { $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() -> anyhow::Result<()> {
                $crate::story::tell($crate::bootstrap::Protocol::$protocol, super::$story).await
            }
        )* }
    };
}

/// Tells a story in a fresh scene, unless this machine has none (see [`crate::required`]).
pub async fn tell(protocol: Protocol, story: impl AsyncFnOnce(&Scene) -> Result<()>) -> Result<()> {
    match Scene::start(protocol).await? {
        Some(scene) => story(&scene).await,
        None => Ok(()),
    }
}
