//! Configs and secrets: not supported yet. When the model has them, this is the place where they become its objects.

use crate::{plan::Planner, service::Service};

impl Planner<'_> {
    pub(super) fn grants(&mut self, service: &Service) {
        for (grants, what) in [(&service.configs, "configs"), (&service.secrets, "secrets")] {
            for grant in grants.iter() {
                let why = format!("there are no {what} yet");
                let hint = "give it by environment, or put it into the image or a volume";
                self.refuse(&grant.spot, &why, hint);
            }
        }
    }
}
