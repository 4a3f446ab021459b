//go:build linux

// Package tree tells what lies in a directory, remembers it, and compares two such trees. It changes no file but its index.
//
// # Scanning
//
// A Scanner walks with getdents(2) and statx(2) relative to the open directory above and opens with openat2(2): it follows no
// symlink, enters no mount and never leaves its root, whatever is moved or swapped meanwhile. A file is read only when the
// earlier tree does not know it by inode, size, mtime and ctime, or read it within 20 ms of a change ("racily clean", as git
// calls it). Writes through mmap(2) may change a file without changing its times for as long as the page stays dirty: that is
// what Options.Verify finds. At most Options.Readers files are read at once and as many wait open; memory does not grow with
// their size.
//
// What cannot be established (unreadable, always changing, a mount point) is an Unsettled entry: it must not be taken for a
// deletion. Fifos, sockets and devices are reported and left out. At most 512 levels and paths of 4,095 bytes.
//
// Extended attributes: user.*, security.capability, system.posix_acl_*. The last name accounts by number, as the kernel keeps
// them; both machines must agree on numbers that stand in ACLs.
//
// # Digests
//
// BLAKE3-256 throughout. Fixed numbers are big endian; a varint is Go's unsigned varint (encoding/binary) in its shortest form;
// a string is a varint length and its bytes.
//
//	sum of an entry = BLAKE3 of
//	  1      kind: 0 unknown, 1 directory, 2 file, 3 symlink
//	  1      1 if unsettled, else 0
//	  2      mode
//	  …      string owner, string group
//	  8      mtime, nanoseconds since 1970, two's complement
//	         of a file: 8 size, 32 hash of the content; of a symlink: string target
//	  …      varint count of xattrs, and of each, by name: string name, string value
//	  …      string link: the first path of the inode, "" if that is this one
//	digest of a directory = BLAKE3 of, for each name in it, in the order of their bytes:
//	  …      string name
//	  32     sum of the entry
//	  32     of a directory: its digest
//	digest of a tree = BLAKE3 of the root's sum and the root's digest
//
// # Index, version 1
//
// "ustree", 0, version; the root's record; BLAKE3 of all before. A record, each followed by those of its children:
//
//	…      string name; 1 kind; 1 flags (1 unsettled, 2 racy, 4 several names); 2 mode; string owner, string group
//	32     size, mtime, ctime, inode, 8 each
//	…      varint count of xattrs: string name, string value
//	…      file: 32 hash; symlink: string target; directory: varint count of children, by name
package tree
