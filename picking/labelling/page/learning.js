// Rounds: train, stop, how it comes along; and proposals with one threshold for all micrographs.

import { getJson, postJson } from './connection.js';
import { Grid } from './grid.js';

const $ = (id) => document.getElementById(id);
const KEEP_MS = 250; // after the slider last moved
const BEGIN = 'Mark ten particles or more, then train. Or begin with proposals, and correct them.';

export class Learning {
  /** page: scene, act(kind, content), redraw(), say(text, ms), isReadOnly(), numbered(numbers). */
  constructor(page) {
    this.page = page;
    this.state = null;
    this.candidates = []; // of the micrograph that is open: {y, x, score}
    this.place = null;
    this.threshold = 0.5;
    const asked = (id, path, content = () => ({})) => {
      $(id).addEventListener('click', async () => {
        $(id).disabled = true;
        try {
          await postJson(path, content());
          this.update(await getJson('/learning'));
        } catch (error) {
          page.say(error.message, 10_000);
        }
        $(id).disabled = false;
      });
    };
    asked('propose', '/propose');
    asked('train', '/train', () => ({ expected: Number($('expected').value) || null }));
    asked('stop', '/stop');
    asked('go-on', '/go-on');
    $('threshold').addEventListener('input', () => this.moveThreshold());
    $('accept-all').addEventListener('click', () => this.all('accept'));
    $('reject-all').addEventListener('click', () => this.all('reject'));
    $('export').addEventListener('click', () => this.export());
  }

  /** Take what the server says of rounds. */
  update(state) {
    const before = this.state?.proposals;
    this.state = state;
    const { round, proposals, usual } = state;
    $('expected').placeholder = usual ?? '?';
    const isRunning = round?.state === 'running';
    $('train').hidden = isRunning;
    $('train').textContent = round ? 'Train again' : 'Train';
    $('propose').hidden = Boolean(round);
    for (const id of ['propose', 'train']) $(id).disabled = this.page.isReadOnly();
    $('stop').hidden = !isRunning || round.is_stopping;
    $('go-on').hidden = !['stopped', 'failed'].includes(round?.state);
    $('round-progress').hidden = !isRunning;
    if (isRunning && round.fraction !== null) $('round-progress').value = round.fraction;
    else $('round-progress').removeAttribute('value');
    $('round-text').textContent = round ? said(round) : BEGIN;
    $('log-details').hidden = !round?.log.length;
    $('log').textContent = round?.log.join('\n') ?? '';
    if (!$('format').length) {
      for (const name of state.formats) $('format').add(new Option(name.toUpperCase(), name));
    }
    $('proposals').hidden = !proposals;
    if (!proposals) return;
    if (!this.isMoving) {
      this.threshold = proposals.threshold;
      $('threshold').value = this.threshold;
    }
    this.describe();
    const isNew = before?.round !== proposals.round ||
      before?.numbers[this.place] !== proposals.numbers[this.place];
    if (isNew) this.fetch();
    const count = (known) => Object.keys(known?.numbers ?? {}).length;
    // There is something else to see
    if (before?.round !== proposals.round || count(before) !== count(proposals)) this.page.proposed();
    this.count();
  }

  /** Show the proposals of the micrograph at a place of the list. */
  async open(place) {
    this.place = place;
    this.candidates = [];
    if (this.state?.proposals) await this.fetch();
  }

  async fetch() {
    const { place } = this;
    if (place === null) return;
    const rows = await getJson(`/proposals/${place}`).catch(() => []);
    if (place !== this.place) return;
    this.candidates = rows.map(([y, x, score]) => ({ y, x, score }));
    this.show();
    this.page.redraw();
  }

  /** Choose what is proposed: above the threshold, not where marks or junk are. */
  show() {
    const { scene } = this.page;
    const { labels, diameter } = scene;
    const near = new Grid(labels.marks, Math.max(1, diameter / 2));
    const isOpen = !labels.complete && !labels.left_out;
    const { histogram } = this.state?.proposals ?? { histogram: [1] };
    const highest = histogram.reduce((last, n, bin) => (n ? bin + 1 : last), 1) / histogram.length;
    const span = Math.max(1e-6, highest - this.threshold); // colours are for the scores there are
    scene.proposals = !isOpen ? [] : this.candidates
      .filter(({ y, x, score }) => score >= this.threshold && near.nearest(y, x) === null &&
        !isInJunk(labels.junk, y, x))
      .map((one) => ({ ...one, rank: (one.score - this.threshold) / span }));
    this.grid = new Grid(scene.proposals.entries(), Math.max(1, diameter));
    const n = scene.proposals.length;
    $('n-proposals').textContent = n;
    for (const [id, word] of [['accept-all', 'Accept'], ['reject-all', 'Reject']]) {
      $(id).textContent = `${word} all ${n}`;
      $(id).disabled = !n || this.page.isReadOnly();
    }
    this.count();
  }

  /** Say in the strip how many proposals nobody has decided on: of the open micrograph at once. */
  count() {
    const left = { ...this.state?.proposals?.left };
    if (this.candidates.length) left[this.place] = this.page.scene.proposals.length;
    this.page.numbered(left);
  }

  at(y, x, reach) {
    const { scene } = this.page;
    if (!scene.visible || !this.grid) return null;
    return scene.proposals[this.grid.nearest(y, x, reach)] ?? null;
  }

  all(kind, chosen = this.page.scene.proposals) {
    if (chosen.length) this.page.act(kind, { centres: chosen.map(({ y, x }) => [y, x]) });
  }

  /** Offer to accept or reject the proposals in a box of the screen; with null, do not. */
  offer(box, viewer) {
    const menu = $('box-menu');
    menu.hidden = true;
    if (!box) return;
    const [left, right] = [box.x0, box.x1].sort((a, b) => a - b);
    const [top, bottom] = [box.y0, box.y1].sort((a, b) => a - b);
    const inside = this.page.scene.proposals.filter((proposal) => {
      const { x, y } = viewer.toScreen(proposal);
      return x >= left && x <= right && y >= top && y <= bottom;
    });
    if (!inside.length) return;
    for (const [id, kind, word] of [
      ['box-accept', 'accept', 'Accept'], ['box-reject', 'reject', 'Reject'],
    ]) {
      $(id).textContent = `${word} ${inside.length}`;
      $(id).onclick = () => {
        this.all(kind, inside);
        menu.hidden = true;
      };
    }
    menu.style.left = `${Math.min(left, viewer.canvas.clientWidth - 200)}px`;
    menu.style.top = `${Math.min(bottom + 4, viewer.canvas.clientHeight - 40)}px`;
    menu.hidden = false;
  }

  moveThreshold() {
    this.isMoving = true;
    this.threshold = Number($('threshold').value);
    this.show();
    this.describe();
    this.page.redraw();
    clearTimeout(this.keeping);
    this.keeping = setTimeout(async () => {
      try {
        const state = await postJson('/threshold', { threshold: this.threshold });
        this.isMoving = false;
        this.update(state);
      } catch (error) {
        this.page.say(error.message, 10_000);
      }
      this.isMoving = false;
    }, KEEP_MS);
  }

  describe() {
    const { histogram, quality, numbers } = this.state.proposals;
    const first = this.threshold * histogram.length;
    const above = histogram.reduce((sum, n, bin) => sum + (bin >= Math.floor(first) ? n : 0), 0);
    const n = Object.keys(numbers).length;
    $('threshold-text').textContent = `Threshold ${this.threshold.toFixed(2)}:`;
    $('numbers').textContent = `about ${above.toLocaleString('en')} picks on ${n} micrograph` +
      `${n === 1 ? '' : 's'}, ${Math.round(above / Math.max(1, n))} on each`;
    $('quality').textContent = described(quality);
    drawHistogram($('histogram'), histogram, this.threshold);
  }

  async export() {
    try {
      const told = await postJson('/export', { formats: [$('format').value] });
      const n = told.n_picks.toLocaleString('en');
      $('export-text').textContent = `${n} picks are in ${told.folder}: ${told.made_of}`;
    } catch (error) {
      $('export-text').textContent = error.message;
    }
    $('export-text').scrollIntoView({ block: 'nearest' }); // below the edge of a low window
  }
}

function said(round) {
  const name = `Round ${round.round}`;
  if (round.state === 'running') {
    const left = round.left_s === null ? '' : `, ${duration(round.left_s)} left of this step`;
    const step = round.step ? ` (step ${round.step} of ${round.n_steps}${left})` : '';
    return `${name}: ${round.is_stopping ? 'stopping' : round.title}${step} …`;
  }
  const from = round.n_picks ? `from ${round.n_picks} picks` : 'by the general network';
  if (round.state === 'done') return `${name} is done (${from}).`;
  return `${name} ${round.state === 'stopped' ? 'was stopped' : 'failed'}: ${round.said}`;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function described({ n_complete: n, precision, recall, intervals }) {
  if (precision === undefined) {
    return `Precision and recall: not known, with ${n} complete micrograph${n === 1 ? '' : 's'}. ` +
      'Mark three or more as complete.';
  }
  const percent = (value) => (value === null ? '?' : `${Math.round(100 * value)}`);
  const both = [['Precision', precision, 'precision'], ['recall', recall, 'recall']];
  const words = both.map(([word, value, key]) => {
    const [low, high] = intervals[key] ?? [null, null];
    return `${word} ${percent(value)}% (${percent(low)} to ${percent(high)})`;
  });
  return `${words.join(', ')} on the ${n} complete micrographs (it may know them).`;
}

function drawHistogram(canvas, counts, threshold) {
  const context = canvas.getContext('2d');
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  const most = Math.log1p(Math.max(1, ...counts)); // few candidates score high
  counts.forEach((n, bin) => {
    const bar = (Math.log1p(n) / most) * (height - 4);
    const isAbove = bin >= Math.floor(threshold * counts.length);
    context.fillStyle = isAbove ? '#ffd45e' : '#4a545e';
    const left = (bin / counts.length) * width;
    context.fillRect(left, height - bar, width / counts.length - 1, bar);
  });
}

/** Whether a place is junk: the last stroke over it decides. */
function isInJunk(strokes, y, x) {
  for (let number = strokes.length - 1; number >= 0; number -= 1) {
    const { path, radius, erase } = strokes[number];
    for (let i = 0; i < path.length; i += 1) {
      const [ay, ax] = path[Math.max(0, i - 1)];
      const [by, bx] = path[i];
      const squared = (by - ay) ** 2 + (bx - ax) ** 2;
      const along = squared ? ((y - ay) * (by - ay) + (x - ax) * (bx - ax)) / squared : 0;
      const t = Math.max(0, Math.min(1, along));
      if (Math.hypot(y - ay - t * (by - ay), x - ax - t * (bx - ax)) <= radius) return !erase;
    }
  }
  return false;
}
