package cloud

import "testing"

// FuzzMetadata reads whatever answers at the metadata service's address: a reading has an ID, and only IPv4 addresses.
func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"droplet_id": 1, "interfaces": {"public": [{"ipv4": {"ip_address": "192.0.2.1"}, "anchor_ipv4": {"ip_address": "10.16.0.2"}}]}}`))
	f.Add([]byte(`{"droplet_id": 1, "reserved_ip": {"ipv4": {"active": true, "ip_address": "203.0.113.10"}}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseMetadata(data)
		if err != nil {
			if s != (Self{}) {
				t.Errorf("got %+v beside the error %v", s, err)
			}
			return
		}
		if s.ID == "" || s.ID[0] == '-' || s.ID == "0" {
			t.Errorf("got the ID %q", s.ID)
		}
		if s.Reserved.IsValid() && !s.ReservedActive || s.Private.Is6() || s.Public.Is6() || s.Anchor.Is6() || s.Reserved.Is6() {
			t.Errorf("got %+v", s)
		}
	})
}
