"""How ranks make one model: all-reduce, a parameter server, or gossip with neighbours."""
