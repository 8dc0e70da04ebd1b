// The strip of all micrographs: thumbnail, name, state, counts. Names are text, never HTML.

const STAY_MS = 80;
const LONG = 15; // letters, which fit under a thumbnail

export class Strip {
  constructor(element, chosen) {
    this.element = element;
    this.chosen = chosen;
    this.items = [];
    this.rows = [];
    this.filter = '';
    this.proposals = {}; // how many are to be decided on, by place
    // Of 2,000 thumbnails those are fetched that stay near: a strip that is scrolled past others
    // would have the micrograph wait behind them
    this.near = new Set();
    this.watching = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const image = target.querySelector('img');
        if (isIntersecting) this.near.add(image);
        else this.near.delete(image);
        if (!isIntersecting && !image.complete) image.removeAttribute('src');
      }
      clearTimeout(this.staying);
      this.staying = setTimeout(() => this.fetchNear(), STAY_MS);
    }, { root: element, rootMargin: '0px 400px' });
  }

  fetchNear() {
    for (const image of this.near) {
      if (!image.hasAttribute('src')) image.src = image.dataset.src;
    }
  }

  fill(rows) {
    this.watching.disconnect();
    this.near.clear();
    this.rows = rows;
    const short = shortener(rows.map((row) => row.name));
    this.items = rows.map((row, place) => {
      const item = document.createElement('button');
      item.className = 'micrograph';
      item.role = 'option';
      item.title = row.problem ?? row.name;
      item.tabIndex = -1;
      const image = document.createElement('img');
      image.alt = '';
      image.fetchPriority = 'low';
      image.dataset.src = `/thumbnails/${place}`;
      const label = document.createElement('span');
      label.className = 'label';
      label.textContent = short(row.name);
      item.dataset.name = row.name;
      const note = document.createElement('span');
      note.className = 'note';
      item.append(image, label, note);
      item.addEventListener('click', () => this.chosen(place));
      if (!row.problem) this.watching.observe(item);
      return item;
    });
    this.element.replaceChildren(...this.items);
    rows.forEach((row, place) => this.update(place, row));
    this.select(this.selected);
  }

  update(place, row) {
    this.rows[place] = row;
    const item = this.items[place];
    item.dataset.state = row.state;
    const negatives = row.not_particles ? ` · ${row.not_particles} ✕` : '';
    const isOpen = row.state === 'untouched' || row.state === 'in part';
    const more = isOpen ? this.proposals[place] : undefined;
    const marked = row.picks || row.not_particles ? `${row.picks}${negatives}` : null;
    const proposed = more === undefined ? null : marked ? `+${more}` : `${more} prop.`;
    const counts = [marked, proposed].filter(Boolean).join(' · ') || row.state;
    const flag = { complete: '✓ ', 'left out': '⊘ ' }[row.state] ?? '';
    const note = item.querySelector('.note');
    note.textContent = row.problem ? '⚠ cannot be read' : flag + counts;
    const toDecide = more === undefined ? [] : [`${more} proposals to decide on`];
    const words = [`${row.picks} particles`, `${row.not_particles} places without`, ...toDecide];
    note.title = row.problem ?? `${row.name}: ${words.join(', ')}`;
    item.hidden = this.filter !== '' && row.state !== this.filter && place !== this.selected;
  }

  setProposals(numbers) {
    const before = this.proposals;
    this.proposals = numbers;
    this.rows.forEach((row, place) => {
      if (numbers[place] !== before[place]) this.update(place, row);
    });
  }

  setFilter(state) {
    this.filter = state;
    this.rows.forEach((row, place) => this.update(place, row));
  }

  select(place) {
    const before = this.selected;
    this.selected = place;
    for (const one of [before, place]) {
      if (this.items[one]) this.update(one, this.rows[one]);
      this.items[one]?.setAttribute('aria-selected', String(one === place));
    }
    this.items[place]?.scrollIntoView({ inline: 'center', block: 'nearest' });
  }

  /** The place of the one that is `step` after `place` among those that show. */
  beside(place, step) {
    for (let next = place + step; this.items[next]; next += step) {
      if (!this.items[next].hidden && !this.rows[next].problem) return next;
    }
    return null;
  }
}

/** A function that leaves out of long names what all of them begin and end with. */
function shortener(names) {
  const [first] = names;
  let head = 0;
  while (head < first.length && names.every((name) => name[head] === first[head])) head += 1;
  let tail = 0;
  const end = (name) => name[name.length - 1 - tail];
  while (tail < first.length - head && names.every((name) => end(name) === end(first))) tail += 1;
  // Numbers and words stay whole
  while (head && /[a-z0-9]/i.test(first[head - 1])) head -= 1;
  while (tail && /[a-z0-9]/i.test(first[first.length - tail])) tail -= 1;
  return (name) => {
    if (name.length <= LONG || names.length < 2) return name;
    return `${head ? '…' : ''}${name.slice(head, name.length - tail)}${tail ? '…' : ''}`;
  };
}
