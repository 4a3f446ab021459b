//go:build linux

// Package datasync keeps a directory the same on two machines: the primary of a role writes it, and the other one mirrors it.
//
// The mirror dials (Mirror.Follow); the source pushes. What there is of it lies in the packages below: watch (what has changed), tree (what
// there is, and in what two trees differ), delta and pack (how a new version gets there), wire (what is said), apply (how it is
// written).
//
// # How a session goes at the source
//
//  1. Hello is checked: version, set, and that the mirror knows no higher epoch than the one held here.
//  2. The watch begins, then the scan (from the index). One watch per session: nothing has to be kept up while nobody listens.
//  3. Rails (tree.Situation) with the numbers of Accept: an empty, unmarked or shrunken source says so and stops.
//  4. If the digests differ, directories are compared level by level (Ask, Children, tree.Compare), several asked ahead. Missing: Make and Put.
//     Extra: Remove, or Keep if Accept said First. Differs: Put, or Sign and Patch from 256 KiB on; before the first comparison of an epoch
//     overwrites a file it keeps the old version. Further names of hard links come after their first, directories' own entries
//     at the very end. What has a rank (tree.Policy.Last) is held until a barrier of the watch has passed that was asked for after it was
//     looked at. A Commit every 5,000 changes or 128 MiB; the stream's own back-pressure bounds the rest.
//  5. Then the watch's word: a path is looked at again (Scanner.Update), and goes as Remove, Put, Patch, Make or Set, with its directory's Set;
//     a new tree is compared as in 4; everything: scan and 4. What Failed, or is unsettled, is due again a little later.
//  6. A barrier of the watch is passed when the Commit that its changes are in is Durable. Lag is what is not, in changes, bytes and age.
//
// Every byte is read once a week and compared with what the index remembers (verify.go). What has rotted on a mirror comes from the source again. What has
// rotted on the source stays off the mirror for as long as its index is there and nobody touches the file, and is mended once the duty has moved.
package datasync
