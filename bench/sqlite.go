package main

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	_ "modernc.org/sqlite" // the driver
)

// openSQLite is one table with the key as its own index, a log, and a mapping as large as
// the budget. Durable syncs the log at each commit.
func openSQLite(dir string, budget int64, durable bool) (store, error) {
	level := "OFF"
	if durable {
		level = "FULL"
	}
	db, err := sql.Open("sqlite", fmt.Sprintf(
		"file:%s?_pragma=journal_mode(WAL)&_pragma=synchronous(%s)&_pragma=cache_size(-%d)&_pragma=mmap_size(%d)&_pragma=busy_timeout(60000)&_txlock=immediate",
		filepath.Join(dir, "db"), level, budget>>13, budget/2))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(4)
	db.SetMaxIdleConns(4)
	s := &sqliteStore{db: db}
	if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID`); err != nil {
		return nil, err
	}
	for _, p := range []struct {
		to  **sql.Stmt
		sql string
	}{
		{&s.set, `INSERT INTO kv VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v`},
		{&s.get, `SELECT v FROM kv WHERE k = ?`},
		{&s.from, `SELECT k, v FROM kv WHERE k >= ? ORDER BY k LIMIT ?`},
	} {
		if *p.to, err = db.Prepare(p.sql); err != nil {
			return nil, err
		}
	}
	return s, nil
}

type sqliteStore struct {
	mu             sync.Mutex // one writer at a time: the others would sleep and try again
	db             *sql.DB
	set, get, from *sql.Stmt
}

func (s *sqliteStore) put(k, v []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.set.Exec(k, v)
	return err
}

func (s *sqliteStore) putBatch(n int, pair func(int) (k, v []byte)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	set := tx.Stmt(s.set)
	for i := range n {
		k, v := pair(i)
		if _, err := set.Exec(k, v); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

func (s *sqliteStore) read(k []byte, f func([]byte)) error {
	v, err := s.copyTo(nil, k)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		f(v)
	}
	return err
}

func (s *sqliteStore) copyTo(dst, k []byte) ([]byte, error) {
	var v []byte
	err := s.get.QueryRow(k).Scan(&v)
	return append(dst, v...), err
}

func (s *sqliteStore) scan(from []byte, n int, f func(k, v []byte)) error {
	if from == nil {
		from = []byte{}
	}
	rows, err := s.from.Query(from, n)
	if err != nil {
		return err
	}
	defer rows.Close()
	var k, v sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&k, &v); err != nil {
			return err
		}
		f(k, v)
	}
	return rows.Err()
}

func (s *sqliteStore) flush() error {
	_, err := s.db.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
	return err
}
func (s *sqliteStore) close() error { return s.db.Close() }
