package role

// Fact is what a node hands to Puppet as the structured fact `understudy`. Its JSON is a promise to
// manifests: keys are added, never changed. Lists are empty rather than null. Nothing in it depends
// on who has the duty, so a failover never changes a catalog.
type Fact struct {
	Cluster      string              `json:"cluster"`
	Domain       string              `json:"domain"`
	Node         string              `json:"node"` // the short hostname
	Role         string              `json:"role"`
	FirstNode    bool                `json:"first_node"` // whether the node is the first of its role
	Members      map[string][]string `json:"members"`    // role → its nodes, this role included
	Address      *Address            `json:"address"`    // of this role; null: none
	Names        []string            `json:"names"`
	Data         []Data              `json:"data"`
	PrimaryUnits []string            `json:"primary_units"`
	Journal      *Journal            `json:"journal"` // of this role; null: none
	Roles        map[string]RoleFact `json:"roles"`   // every role, by name
}

// RoleFact is what every node may know of every role.
type RoleFact struct {
	Nodes   []string `json:"nodes"`
	Address *Address `json:"address"`
	Names   []string `json:"names"`
}

// Fact returns the fact of a hostname, which is looked up as by ForHost and gives the same error.
func (r Roster) Fact(hostname string) (Fact, error) {
	role, node, err := r.find(hostname)
	if err != nil {
		return Fact{}, err
	}
	fact := Fact{
		Cluster: r.Cluster, Domain: r.Domain, Node: node, Role: role.Name,
		FirstNode:    node == role.Nodes[0],
		Members:      make(map[string][]string, len(r.Roles)),
		Address:      role.Address.fact(),
		Names:        list(role.Names),
		Data:         list(role.Data),
		PrimaryUnits: list(role.PrimaryUnits),
		Journal:      role.Journal.fact(),
		Roles:        make(map[string]RoleFact, len(r.Roles)),
	}
	for _, other := range r.Roles {
		fact.Members[other.Name] = list(other.Nodes)
		fact.Roles[other.Name] = RoleFact{Nodes: list(other.Nodes), Address: other.Address.fact(), Names: list(other.Names)}
	}
	return fact, nil
}

// fact returns a copy that marshals its names as a list even if there are none.
func (a *Address) fact() *Address {
	if a == nil {
		return nil
	}
	c := *a
	c.Names = list(a.Names)
	return &c
}

// fact returns a copy.
func (j *Journal) fact() *Journal {
	if j == nil {
		return nil
	}
	c := *j
	c.Domains = list(j.Domains)
	return &c
}

// list returns a copy of s that is never nil.
func list[T any](s []T) []T { return append([]T{}, s...) }
