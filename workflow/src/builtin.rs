//! The networks that come with Mistique, each a YAML file in `networks/`.

use crate::error::NetworkError;
use crate::network::Network;
use crate::suggest::nearest;

const SOURCES: &[(&str, &str)] = &[
    ("digits_cnn", include_str!("networks/digits_cnn.yaml")),
    ("cifar10_cnn", include_str!("networks/cifar10_cnn.yaml")),
    ("vgg16", include_str!("networks/vgg16.yaml")),
    ("resnet20", include_str!("networks/resnet20.yaml")),
];

/// The names that [`Network::builtin`] knows.
pub const BUILTIN: &[&str] = &["digits_cnn", "cifar10_cnn", "vgg16", "resnet20"];

impl Network {
    /// The builtin network of that name.
    ///
    /// Errors: [`NetworkError::UnknownBuiltin`], which lists the names.
    pub fn builtin(name: &str) -> Result<Network, NetworkError> {
        match SOURCES.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Network::parse(text),
            None => Err(NetworkError::UnknownBuiltin {
                name: name.to_string(),
                nearest: nearest(name, BUILTIN.iter().copied()),
                known: BUILTIN.join(", "),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_and_the_sources_agree() {
        let names: Vec<_> = SOURCES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, BUILTIN);
        for name in BUILTIN {
            assert_eq!(Network::builtin(name).unwrap().name(), *name);
        }
    }
}
