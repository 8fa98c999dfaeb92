//! Endpoints that become another identity while they talk.

use crate::{
    policies::{closed, letting_in, reached, set},
    services::servers,
    talk::{ask, connect, datagrams, echo, serve_tcp},
    world::{Place, addresses, in_a_world, replica},
};
use hivemind_datapath::{Datapath, Error};
use hivemind_policy::Tables;
use std::{net::SocketAddr, sync::Arc};

/// An identity that no endpoint has at first.
const OTHER: u32 = 4_321;

#[test]
fn an_endpoint_is_judged_by_others_and_itself_as_what_it_has_become() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        let made = servers(world, &datapath, &[2]).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        world.run(Place::In(&a), || serve_tcp("10.200.1.1:90".parse().unwrap(), 1)).join().unwrap();
        set(&datapath, 2, letting_in(OTHER, 80)).await;
        let to: Vec<SocketAddr> =
            addresses(&replica(2)).into_iter().map(|address| (address, 80).into()).collect();
        assert_eq!(reached(world, &a, to.clone()), [false, false]);

        datapath.set_policy(OTHER, Arc::new(Tables::open())).await.unwrap();
        datapath.identify_endpoint(&replica(1).id, OTHER).await.unwrap();
        assert_eq!(reached(world, &a, to.clone()), [true, true]);
        // By its own policy, which is that of what it was no more.
        set(&datapath, 1, closed(0)).await;
        let own: SocketAddr = "10.200.1.1:90".parse().unwrap();
        assert_eq!(reached(world, &made[0], vec![own]), [true]);
        datapath.set_policy(OTHER, Arc::new(closed(0))).await.unwrap();
        assert_eq!(reached(world, &made[0], vec![own]), [false]);

        // And back, when what it is has no policy yet: nothing passes.
        datapath.remove_policy(OTHER).await.unwrap();
        assert_eq!(reached(world, &a, to), [false, false]);
    });
}

#[test]
fn who_has_no_policy_shares_anothers_until_it_is_given_its_own() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[1]).await;
        let client = datapath.ensure_endpoint(replica(2)).await.unwrap();
        let own: SocketAddr = "10.200.1.1:80".parse().unwrap();
        let is_reached = || reached(world, &client, vec![own]) == [true];
        set(&datapath, 1, Tables::open()).await;
        assert!(is_reached());
        datapath.share_policy(OTHER, replica(1).identity).await.unwrap();
        datapath.identify_endpoint(&replica(1).id, OTHER).await.unwrap();
        assert!(is_reached(), "it is judged as it was");
        // What becomes of the other one's is not for it.
        set(&datapath, 1, closed(0)).await;
        assert!(is_reached());
        datapath.set_policy(OTHER, Arc::new(closed(0))).await.unwrap();
        assert!(!is_reached());
        // One that has a policy keeps it.
        set(&datapath, 1, Tables::open()).await;
        datapath.share_policy(OTHER, replica(1).identity).await.unwrap();
        assert!(!is_reached());
        let refused = datapath.share_policy(1 << 24, OTHER).await;
        assert!(matches!(refused, Err(Error::Spec { .. })), "{refused:?}");
    });
}

#[test]
fn connections_that_are_made_are_judged_as_what_their_ends_have_become() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[2]).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        let target: SocketAddr = "10.200.1.2:80".parse().unwrap();
        let (socket, mut stream) = world
            .run(Place::In(&a), move || {
                let socket = datagrams("10.200.1.2".parse().unwrap());
                ask(&socket, target).unwrap();
                (socket, connect(target).unwrap().0)
            })
            .join()
            .unwrap();
        set(&datapath, 2, letting_in(replica(1).identity, 80)).await;
        echo(&mut stream).unwrap();
        datapath.set_policy(OTHER, Arc::new(Tables::open())).await.unwrap();
        datapath.identify_endpoint(&replica(1).id, OTHER).await.unwrap();
        assert!(echo(&mut stream).is_err());
        datapath.identify_endpoint(&replica(1).id, replica(1).identity).await.unwrap();
        echo(&mut stream).unwrap();
        drop(socket);
    });
}

#[test]
fn what_an_endpoint_has_become_survives_the_daemon() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        servers(world, &datapath, &[2]).await;
        let a = datapath.ensure_endpoint(replica(1)).await.unwrap();
        datapath.set_policy(OTHER, Arc::new(Tables::open())).await.unwrap();
        datapath.identify_endpoint(&replica(1).id, OTHER).await.unwrap();
        drop(datapath);
        let datapath = Datapath::open(world.config.clone()).await.unwrap();
        let mut spec = replica(1);
        spec.identity = OTHER;
        assert!(datapath.endpoints().iter().any(|endpoint| endpoint.spec == spec));
        // It stands as asked.
        assert_eq!(datapath.ensure_endpoint(spec).await.unwrap(), a);
        set(&datapath, 2, letting_in(OTHER, 80)).await;
        assert_eq!(reached(world, &a, vec!["10.200.1.2:80".parse().unwrap()]), [true]);
    });
}

#[test]
fn nothing_becomes_what_it_cannot_be() {
    in_a_world(async |world| {
        let datapath = world.open().await;
        datapath.ensure_endpoint(replica(1)).await.unwrap();
        let refused = datapath.identify_endpoint("nobody", OTHER).await;
        assert!(matches!(refused, Err(Error::Spec { .. })), "{refused:?}");
        let refused = datapath.identify_endpoint(&replica(1).id, 1 << 24).await;
        assert!(matches!(refused, Err(Error::Spec { .. })), "{refused:?}");
        assert!(datapath.endpoints().iter().any(|endpoint| endpoint.spec == replica(1)));
    });
}
