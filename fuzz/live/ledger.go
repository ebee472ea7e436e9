package live

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// ledger is what a bank should hold: balances follow from how many transfers of each
// teller were made, in whatever order, so every moment can be checked exactly.
type ledger struct {
	accounts int
	history  *oracle.History // a lane for each teller: its log of transfers

	mu   sync.Mutex
	made [][]transfer // by teller, in order; transfer n of a lane is made[lane][n-1]
}

type transfer struct{ from, to, amount int }

// opening is the first balance of every account.
const opening = 100

// inLog is how many transfers a teller's log holds; older ones are deleted.
const inLog = 12

func newLedger(accounts, tellers int) *ledger {
	return &ledger{accounts: accounts, history: oracle.NewHistory(tellers), made: make([][]transfer, tellers)}
}

func (l *ledger) total() int { return l.accounts * opening }

// begin notes that a teller is about to make a transfer.
func (l *ledger) begin(teller int, t transfer, next oracle.Model) {
	l.mu.Lock()
	l.made[teller] = append(l.made[teller], t)
	l.mu.Unlock()
	l.history.Lanes()[teller].Begin(next)
}

// accountBounds hold every account and nothing else.
var accountBounds = oracle.Bounds{Lower: "account ", Upper: "account~"}

func account(n int) string { return fmt.Sprintf("account %03d", n) }

// money is the value of an account: the balance, and bytes that make some balances
// large enough for a pack. An account without money has no value.
func money(n, balance int) string {
	size := (n*131 + balance*17) % 300
	if n%8 == 3 && balance%4 == 1 {
		size = largeBytes
	}
	return strconv.Itoa(balance) + " " + strings.Repeat("$", size)
}

func parseMoney(n int, v []byte) (int, error) {
	digits, _, _ := strings.Cut(string(v), " ")
	balance, err := strconv.Atoi(digits)
	if err != nil || balance <= 0 || string(v) != money(n, balance) {
		return 0, oracle.Broken(oracle.Lied, account(n), 0, "nobody wrote %.40q (%d bytes)", v, len(v))
	}
	return balance, nil
}

// balances is what the accounts hold after so many transfers of each teller.
func (l *ledger) balances(done []int) []int {
	out := make([]int, l.accounts)
	for i := range out {
		out[i] = opening
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for teller, n := range done {
		for _, t := range l.made[teller][:n] {
			out[t.from] -= t.amount
			out[t.to] += t.amount
		}
	}
	return out
}

// check judges one moment of the bank: logs are whole, the money is all there, and
// each account has what the logs say (O3). s must be of one moment.
func (l *ledger) check(s oracle.Store) error {
	done := make([]int, len(l.made))
	for i, lane := range l.history.Lanes() {
		var err error
		if done[i], err = lane.Whole(s); err != nil {
			return err
		}
	}
	return l.checkAccounts(s, done)
}

func (l *ledger) checkAccounts(s oracle.Store, done []int) error {
	var total int
	got := make([]int, l.accounts)
	for c, err := range s.Scan(accountBounds, false) {
		if err != nil {
			return oracle.Broken(oracle.Lied, "", 0, "scan: %w", err)
		}
		n, err := strconv.Atoi(strings.TrimPrefix(string(c.Key), "account "))
		if err != nil || n < 0 || n >= l.accounts || got[n] != 0 {
			return oracle.Broken(oracle.Lied, string(c.Key), c.Revision, "is there, or is there twice")
		}
		if got[n], err = parseMoney(n, c.Value); err != nil {
			return err
		}
		total += got[n]
	}
	if total != l.total() {
		return oracle.Broken(oracle.Torn, "", 0, "the accounts add up to %d, not to %d", total, l.total())
	}
	if done == nil {
		return nil
	}
	for n, want := range l.balances(done) {
		if got[n] != want {
			return oracle.Broken(oracle.Torn, account(n), 0, "holds %d, after transfers %v it should hold %d", got[n], done, want)
		}
	}
	return nil
}

// came checks what came back: O1 to O4 for the logs, O3 for the accounts.
func (l *ledger) came(s oracle.Store, p oracle.Promise, recovered uint64) error {
	if err := l.history.Check(s, p, recovered); err != nil {
		return err
	}
	return l.check(s)
}

// rewind makes what came back the beginning of what follows.
func (l *ledger) rewind(s oracle.Store) (begun, survived int, err error) {
	begun, survived, err = l.history.Rewind(s)
	if err != nil {
		return begun, survived, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, lane := range l.history.Lanes() {
		n, err := lane.Survived(s)
		if err != nil {
			return begun, survived, err
		}
		l.made[i] = l.made[i][:n]
	}
	return begun, survived, nil
}
