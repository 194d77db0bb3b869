//! The survey of the model world: every object that carries the environment's tag, whatever the record says.

use crate::failure::StepError;
use crate::model::world::World;
use crate::survey::{Findings, Remnant, Scope, Standing, Survey};
use async_trait::async_trait;
use std::sync::Arc;

/// Looks at all of a world.
#[derive(Debug)]
pub struct Remains(pub Arc<World>);

#[async_trait]
impl Survey for Remains {
    async fn survey(&self, scope: &Scope) -> Result<Findings, StepError> {
        {
            let _in_flight = self.0.clock.in_flight();
            tokio::task::yield_now().await;
        }
        let mut findings = Findings::default();
        let objects = self.0.objects();
        findings.search("model:List", format!("owner {}", scope.environment_uid), objects.len());
        for (id, object) in objects {
            let standing = if object.owner == scope.environment_uid.as_str() {
                scope.standing_of(Some(object.step.as_str()))
            } else {
                Standing::Foreign { owner: object.owner }
            };
            findings.remnant(Remnant {
                resource: "model:object".to_owned(),
                id: id.to_string(),
                maker: format!("step {}", object.step),
                standing,
            });
        }
        Ok(findings)
    }
}
