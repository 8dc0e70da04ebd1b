// The strip of all micrographs: thumbnail, name, state, counts. Names are text, never HTML.

export class Strip {
  constructor(element, chosen) {
    this.element = element;
    this.chosen = chosen;
    this.items = [];
    this.rows = [];
    this.filter = '';
    this.proposals = {}; // how many reach the threshold, by place
    // Thumbnails are made when they come near: of 2,000 micrographs few are looked at
    this.watching = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        const image = target.querySelector('img');
        image.src = image.dataset.src;
        this.watching.unobserve(target);
      }
    }, { root: element, rootMargin: '0px 400px' });
  }

  fill(rows) {
    this.watching.disconnect();
    this.rows = rows;
    this.items = rows.map((row, place) => {
      const item = document.createElement('button');
      item.className = 'micrograph';
      item.role = 'option';
      item.title = row.problem ?? row.name;
      item.tabIndex = -1;
      const image = document.createElement('img');
      image.alt = '';
      image.dataset.src = `/thumbnails/${place}`;
      const label = document.createElement('span');
      label.className = 'label';
      const name = document.createElement('bdi'); // the end of a name tells most
      name.textContent = row.name;
      label.append(name);
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
    const proposed = more === undefined ? null : `${more} prop.`;
    const counts = [marked, proposed].filter(Boolean).join(' · ') || row.state;
    const flag = { complete: '✓ ', 'left out': '⊘ ' }[row.state] ?? '';
    item.querySelector('.note').textContent = row.problem ? '⚠ cannot be read' : flag + counts;
    item.hidden = this.filter !== '' && row.state !== this.filter && place !== this.selected;
  }

  setProposals(numbers) {
    this.proposals = numbers;
    this.rows.forEach((row, place) => this.update(place, row));
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
