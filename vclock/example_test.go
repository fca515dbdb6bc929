package vclock_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/starling-kv/starling/vclock"
)

// cart is the value of the examples: items in the order they were added.
type cart []string

func (c cart) String() string { return "[" + strings.Join(c, ", ") + "]" }

// shopper is a client that unites all carts of an answer before it adds to
// them, as figure 6-15 has it.
type shopper struct {
	cart cart
	seen vclock.Clock
}

func (c *shopper) read(server vclock.Set[cart]) {
	c.seen = server.Clock
	for _, sibling := range server.Live {
		for _, item := range sibling.Value {
			if !slices.Contains(c.cart, item) {
				c.cart = append(c.cart, item)
			}
		}
	}
}

// Figure 6-15 of "Designing Data-Intensive Applications", second edition: two
// clients fill one cart on one server, and neither loses what the other added.
func ExampleSet_Write_shoppingCart() {
	var client1, client2 shopper
	var server vclock.Set[cart]
	add := func(name string, c *shopper, item string) {
		c.cart = append(c.cart, item)
		fmt.Println(name, "sends", c.cart, "having seen", short(c.seen...))
		server, _ = server.Write(c.seen, 'A', slices.Clone(c.cart))
		fmt.Println("    server holds", picture(server))
		c.read(server)
	}
	add("client 1", &client1, "milk")
	add("client 2", &client2, "eggs")
	add("client 1", &client1, "flour")
	add("client 2", &client2, "ham")
	add("client 1", &client1, "bacon")
	// Output:
	// client 1 sends [milk] having seen nothing
	//     server holds A1 [milk]
	// client 2 sends [eggs] having seen nothing
	//     server holds A1 [milk] beside A2 [eggs]
	// client 1 sends [milk, flour] having seen A1
	//     server holds A2 [eggs] beside A3 [milk, flour]
	// client 2 sends [eggs, milk, ham] having seen A2
	//     server holds A3 [milk, flour] beside A4 [eggs, milk, ham]
	// client 1 sends [milk, flour, eggs, bacon] having seen A3
	//     server holds A4 [eggs, milk, ham] beside A5 [milk, flour, eggs, bacon]
}

// Figure 6-14 of the same book: two clients write one key at the same time.
// Node 1 hears of A's write alone, node 2 of A's and then of B's, node 3 of
// B's and then of A's. With one value a node they would differ for ever. Here
// the order does not matter, and node 1 catches up by one merge.
func ExampleSet_Merge_threeNodes() {
	var node1, node2, node3 vclock.Set[cart]
	var empty vclock.Set[cart]
	a, _ := empty.Write(nil, 'A', cart{"by A"})
	b, _ := empty.Write(nil, 'B', cart{"by B"})

	node1 = node1.Merge(a)
	node2 = node2.Merge(a).Merge(b)
	node3 = node3.Merge(b).Merge(a)
	fmt.Println("node 1:", picture(node1))
	fmt.Println("node 2:", picture(node2))
	fmt.Println("node 3:", picture(node3))

	node1 = node1.Merge(node3)
	fmt.Println("node 1, repaired:", picture(node1))

	node2, _ = node2.Write(node2.Clock, 'A', cart{"by A", "by B"})
	node1, node3 = node1.Merge(node2), node3.Merge(node2)
	fmt.Println("resolved:", picture(node1), "/", picture(node2), "/", picture(node3))
	// Output:
	// node 1: A1 [by A]
	// node 2: A1 [by A] beside B1 [by B]
	// node 3: A1 [by A] beside B1 [by B]
	// node 1, repaired: A1 [by A] beside B1 [by B]
	// resolved: A2 [by A, by B] / A2 [by A, by B] / A2 [by A, by B]
}

func picture(s vclock.Set[cart]) string {
	parts := make([]string, len(s.Live))
	for i, v := range s.Live {
		parts[i] = short(v.Dot) + " " + v.Value.String()
	}
	return strings.Join(parts, " beside ")
}

// short writes dots of actors that were named by a letter.
func short(dots ...vclock.Dot) string {
	if len(dots) == 0 {
		return "nothing"
	}
	parts := make([]string, len(dots))
	for i, d := range dots {
		parts[i] = fmt.Sprintf("%c%d", rune(d.Actor), d.Counter)
	}
	return strings.Join(parts, " ")
}
