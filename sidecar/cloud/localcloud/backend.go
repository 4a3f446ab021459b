package localcloud

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Backend makes droplets real. The API server owns every record (names, addresses, tags, actions); a backend owns
// power and disks only, and it keeps nothing that the server could not tell it again.
//
// The server never has two calls for one machine under way at once; calls for different machines do overlap. Each
// call gets a context that ends when the server closes.
type Backend interface {
	// Boot makes the disk from m.Image if there is none yet and powers the machine on. It returns once the machine
	// runs. Booting one that runs already is not an error.
	Boot(ctx context.Context, m Machine) error
	// PowerOff cuts the power, as pulling the plug does. It is idempotent, also for an unknown id.
	PowerOff(ctx context.Context, id int) error
	// Erase powers the machine off and removes its disk. It is idempotent, also for an unknown id.
	Erase(ctx context.Context, id int) error
	// Running reports whether the machine has power now. It must not block.
	Running(id int) bool
	// Route sends traffic for the reserved address to the machine that has the anchor address; the zero Addr as
	// anchor sends it to nobody.
	Route(ctx context.Context, reserved, anchor netip.Addr) error
}

// Shutdowner is what a backend offers besides when its machines can be asked to shut down by themselves (an ACPI
// power button). Machines of a backend without it are powered off instead.
type Shutdowner interface {
	// Shutdown asks the machine to stop and returns once it has, or with an error when ctx ends first.
	Shutdown(ctx context.Context, id int) error
}

// Imager is what a backend offers besides when it can make an image of a machine's disk. Without it DigitalOcean's
// action "snapshot" ends as errored.
type Imager interface {
	// MakeImage copies the disk of machine id into a new image called name, which Boot then accepts as Machine.Image.
	MakeImage(ctx context.Context, id int, name string) error
}

// Machine is what a backend must know about one droplet.
type Machine struct {
	// ID is the droplet's number, above zero, never used again after the machine is gone.
	ID int
	// Name is the hostname. Names are not unique, exactly as at DigitalOcean.
	Name string
	// Image is the name of the image the disk is made from, as given in Options.Images.
	Image string
	// Region and Size are slugs.
	Region, Size string
	// UserData is at most 64 KiB; empty when none was given.
	UserData string
	// Public is the address the world sees, Private the one on the cluster's network, Anchor the one a reserved
	// address is delivered to.
	Public, Private, Anchor netip.Addr
	// Tags are the machine's tags when this value was made, sorted.
	Tags []string
	// Created is when the create request was accepted.
	Created time.Time
}

// clone returns a copy that shares nothing with m.
func (m Machine) clone() Machine {
	m.Tags = slices.Clone(m.Tags)
	return m
}
